package anthropic

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
)

// refuseLeaks refuses a request that carries another's key in any header.
func (s *Server) refuseLeaks(h http.Header) error {
	for _, token := range tokens(h) {
		if strings.HasPrefix(token, "sk-") && !s.isKey(token) {
			return unauthenticated("a key that is not ours arrived in the headers")
		}
	}
	return nil
}

// authenticate accepts one credential, in one place. The SDK majors of 2026-10
// send Authorization: Bearer, those before x-api-key; a caller that sends both
// has swapped one and passed the other on.
func (s *Server) authenticate(c *call) error {
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
	if c.key == "" || !s.isKey(c.key) {
		return unauthenticated("invalid x-api-key")
	}
	return nil
}

// isKey reports whether key is accepted; every key is if none is configured.
func (s *Server) isKey(key string) bool {
	return len(s.keys) == 0 || slices.ContainsFunc(s.keys, func(own string) bool {
		return subtle.ConstantTimeCompare([]byte(key), []byte(own)) == 1
	})
}

// keyEnd returns the last four characters of the credential in h.
func keyEnd(h http.Header) string {
	key := h.Get("x-api-key")
	if key == "" {
		key = strings.TrimPrefix(h.Get("authorization"), "Bearer ")
	}
	if len(key) < 8 {
		return ""
	}
	return key[len(key)-4:]
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

// redacted copies h with every credential replaced: by "real" if it is one that
// is accepted, else by "other". When any key is accepted, all are "real".
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
	if s.isKey(key) {
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
