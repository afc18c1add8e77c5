package openai

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// authenticate accepts one credential, in Authorization: Bearer. A caller that
// sends another key in any other header has passed one on that is not ours.
func (s *Server) authenticate(c *call) error {
	c.key = bearer(c.r.Header)
	if c.key == "" {
		c.w.Header().Set("www-authenticate", `Bearer realm="OpenAI API"`)
		return &apiError{
			Status: http.StatusUnauthorized, Type: "invalid_request_error",
			Message: "Missing bearer or basic authentication in header",
		}
	}
	if s.opts.APIKey == "" {
		return nil
	}
	if !s.isKey(c.key) {
		return incorrectKey(c.key)
	}
	for _, word := range words(c.r.Header) {
		if strings.HasPrefix(word, "sk-") && !s.isKey(word) {
			return incorrectKey(word)
		}
	}
	return nil
}

// incorrectKey shows some of the key, as the real API does: a proxy must not
// pass it on.
func incorrectKey(key string) error {
	return &apiError{
		Status: http.StatusUnauthorized, Type: "invalid_request_error", Code: "invalid_api_key",
		Message: "Incorrect API key provided: " + masked(key) + ". You can find your API key at https://platform.openai.com/account/api-keys.",
	}
}

func masked(key string) string {
	if len(key) <= 12 {
		return strings.Repeat("*", len(key))
	}
	return key[:8] + strings.Repeat("*", len(key)-12) + last4(key)
}

func last4(key string) string { return key[max(0, len(key)-4):] }

// bearer returns the token of Authorization: Bearer, or "".
func bearer(h http.Header) string {
	scheme, token, _ := strings.Cut(h.Get("authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func (s *Server) isKey(key string) bool {
	return subtle.ConstantTimeCompare([]byte(key), []byte(s.opts.APIKey)) == 1
}

// words returns every word of every header value.
func words(h http.Header) []string {
	var all []string
	for _, values := range h {
		for _, v := range values {
			all = append(all, strings.FieldsFunc(v, isSeparator)...)
		}
	}
	return all
}

func isSeparator(r rune) bool { return strings.ContainsRune(" \t,;=\"':", r) }

// redacted copies h with every credential replaced: by "real" if it is the one
// that is accepted, else by "other". When any key is accepted, all are "real".
func (s *Server) redacted(h http.Header) http.Header {
	safe := h.Clone()
	for name, values := range safe {
		for i, v := range values {
			switch name {
			case "Authorization", "Proxy-Authorization":
				scheme, token, _ := strings.Cut(v, " ")
				values[i] = scheme + " " + s.label(token)
			case "X-Api-Key", "Api-Key":
				values[i] = s.label(v)
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
