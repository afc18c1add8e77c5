package proxy

import (
	"maps"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// Header is a set of HTTP headers under their canonical names.
type Header map[string][]string

// Get returns the first value of a header by its canonical name, or "".
func (h Header) Get(name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set replaces a header by its canonical name.
func (h Header) Set(name, value string) { h[name] = []string{value} }

// hopByHop are the headers of one connection only (RFC 9110, section 7.6.1).
var hopByHop = names{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// dropped are request headers that never leave: credentials, cookies, what
// describes our side of the connection, and what the transport sets itself.
// Anthropic's clients need none of them.
var dropped = hopByHop.and(names{
	"Authorization": true, "X-Api-Key": true, "Api-Key": true, "X-Goog-Api-Key": true, "Ocp-Apim-Subscription-Key": true,
	"Openai-Organization": true, "Openai-Project": true, "Cookie": true, "Host": true, "Content-Length": true, "Accept-Encoding": true, "Expect": true,
	"Forwarded": true, "Via": true, "X-Real-Ip": true, "X-Request-Id": true,
})

// droppedPrefixes are families of request headers that never leave.
var droppedPrefixes = []string{"X-Forwarded-", "X-Litellm-", "X-Llmproxy-"}

// forUpstream filters a client's headers. What is unknown passes; a header that
// holds the virtual key does not, whatever its name.
func forUpstream(h Header, key secret.String) Header {
	connection := h["Connection"]
	out := make(Header, len(h)+1)
	for name, values := range h {
		if dropped[name] || hasAnyPrefix(name, droppedPrefixes) || listed(connection, name) || holds(values, key) {
			continue
		}
		out[name] = values
	}
	// Only what can be metered: the standard library reads no br and no zstd.
	out.Set("Accept-Encoding", "identity")
	return out
}

// droppedAnswers are answer headers that describe the real organisation or our
// connection to the upstream.
var droppedAnswers = hopByHop.and(names{
	"Set-Cookie": true, "Anthropic-Organization-Id": true, "Openai-Organization": true, "Openai-Project": true, "Content-Length": true, "Alt-Svc": true, "Via": true,
	"Server": true, "Cf-Ray": true, "Cf-Cache-Status": true, "Strict-Transport-Security": true, "Nel": true, "Report-To": true,
})

// droppedAnswerPrefixes are families of answer headers that never reach a
// client: the limits of our real key, and what only we may say.
var droppedAnswerPrefixes = []string{"Anthropic-Ratelimit-", "X-Ratelimit-", "X-Litellm-", "X-Llmproxy-"}

// answerHeader is an answer's header, with an array for the values that we add.
type answerHeader struct {
	Header
	values []string
}

// Set replaces a header by its canonical name.
func (a *answerHeader) Set(name, value string) {
	a.values = append(a.values, value)
	n := len(a.values)
	a.Header[name] = a.values[n-1 : n : n]
}

// ourHeaders is how many values we add at most.
const ourHeaders = 8

// forClient makes of an upstream's headers the client's: it takes some away and adds
// ours.
func forClient(h Header, requestID, modelID string) answerHeader {
	connection := h["Connection"]
	out := answerHeader{h, make([]string, 0, ourHeaders)}
	for name := range h {
		if droppedAnswers[name] || listed(connection, name) || hasAnyPrefix(name, droppedAnswerPrefixes) {
			delete(h, name)
		}
	}
	out.Set("X-Llmproxy-Request-Id", requestID)
	out.Header["X-Litellm-Call-Id"] = out.Header["X-Llmproxy-Request-Id"]
	out.Set("X-Litellm-Model-Id", modelID)
	return out
}

// names is a set of canonical names.
type names map[string]bool

func (n names) and(more names) names {
	maps.Copy(more, n)
	return more
}

func hasAnyPrefix(name string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// listed says whether one of the Connection headers names this one.
func listed(connection []string, name string) bool {
	for _, list := range connection {
		for part := range strings.SplitSeq(list, ",") {
			if part = strings.TrimSpace(part); part != "" && strings.EqualFold(part, name) {
				return true
			}
		}
	}
	return false
}

func holds(values []string, key secret.String) bool {
	if key.Empty() {
		return false
	}
	for _, v := range values {
		if strings.Contains(v, key.Reveal()) {
			return true
		}
	}
	return false
}

// KeyFrom takes the virtual key out of a request's headers: x-litellm-api-key
// first, as LiteLLM does, then Authorization: Bearer, then x-api-key. Claude
// Code may send both of the latter, each with the key.
func KeyFrom(h Header) secret.String {
	for _, name := range []string{"X-Litellm-Api-Key", "Authorization", "X-Api-Key"} {
		v := strings.TrimSpace(h.Get(name))
		if scheme, rest, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			v = strings.TrimSpace(rest)
		}
		if v != "" {
			return secret.New(v)
		}
	}
	return secret.String{}
}
