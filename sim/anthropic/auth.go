package anthropic

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// authenticate accepts one credential, in one place. The SDK majors of 2026-10
// send Authorization: Bearer, those before x-api-key; a caller that sends both
// has swapped one and passed the other on.
func (s *Server) authenticate(c *call) error {
	for _, token := range tokens(c.r.Header) {
		if s.opts.APIKey != "" && strings.HasPrefix(token, "sk-") && !s.isKey(token) {
			return unauthenticated("a key that is not ours arrived in the headers")
		}
	}
	apiKey := c.r.Header.Get("x-api-key")
	bearer, isBearer := strings.CutPrefix(c.r.Header.Get("authorization"), "Bearer ")
	switch {
	case apiKey == "" && !isBearer:
		return unauthenticated("x-api-key header is required")
	case apiKey != "" && c.r.Header.Get("authorization") != "":
		return unauthenticated("x-api-key and authorization were both sent")
	case isBearer:
		c.key = bearer
	default:
		c.key = apiKey
	}
	if c.key == "" || (s.opts.APIKey != "" && !s.isKey(c.key)) {
		return unauthenticated("invalid x-api-key")
	}
	return nil
}

func (s *Server) isKey(key string) bool {
	return subtle.ConstantTimeCompare([]byte(key), []byte(s.opts.APIKey)) == 1
}

// tokens returns every word of every header value.
func tokens(h http.Header) []string {
	var words []string
	for _, values := range h {
		for _, v := range values {
			words = append(words, strings.FieldsFunc(v, isSeparator)...)
		}
	}
	return words
}

func isSeparator(r rune) bool { return strings.ContainsRune(" \t,;=\"':", r) }

// redacted copies h with every credential replaced: by "real" if it is the one
// that is accepted, else by "other". When any key is accepted, all are "real".
func (s *Server) redacted(h http.Header) http.Header {
	safe := h.Clone()
	for name, values := range safe {
		for i, v := range values {
			switch name {
			case "X-Api-Key":
				values[i] = s.label(v)
			case "Authorization", "Proxy-Authorization":
				scheme, token, _ := strings.Cut(v, " ")
				values[i] = scheme + " " + s.label(token)
			default:
				values[i] = s.hideKeys(v)
			}
		}
	}
	return safe
}

func (s *Server) label(key string) string {
	if s.opts.APIKey == "" || s.isKey(key) {
		return "real"
	}
	return "other"
}

// hideKeys replaces the words of v that look like keys.
func (s *Server) hideKeys(v string) string {
	for _, word := range strings.FieldsFunc(v, isSeparator) {
		if strings.HasPrefix(word, "sk-") {
			v = strings.ReplaceAll(v, word, s.label(word))
		}
	}
	return v
}
