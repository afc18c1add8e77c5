package proxy

import (
	"slices"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// Header is a client's set of HTTP headers under their canonical names.
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

// ofOneHop says whether a header is of one connection only (RFC 9110, section 7.6.1).
func ofOneHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// staysHere says whether a request's header never leaves: credentials, cookies, what
// describes our side of the connection, and what the transport sets itself.
// Anthropic's clients need none of them.
func staysHere(name string) bool {
	switch name {
	case "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "Openai-Organization", "Openai-Project",
		"Cookie", "Host", "Content-Length", "Accept-Encoding", "Expect", "Forwarded", "Via", "X-Real-Ip", "X-Request-Id":
		return true
	}
	return ofOneHop(name) || hasAnyPrefix(name, stayingHere)
}

// stayingHere are families of request headers that never leave.
var stayingHere = []string{"X-Forwarded-", "X-Litellm-", "X-Llmproxy-"}

// forUpstream filters a client's headers. What is unknown passes; a header that
// holds the virtual key does not, whatever its name.
func forUpstream(h Header, key secret.String) head.Lines {
	connection := h["Connection"]
	out := make(head.Lines, 0, len(h)+1)
	for name, values := range h {
		if staysHere(name) || listed(connection, name) || holds(values, key) {
			continue
		}
		for _, v := range values {
			out = append(out, head.Line{Name: name, Value: v})
		}
	}
	// Only what can be metered: the standard library reads no br and no zstd.
	return append(out, head.Line{Name: "Accept-Encoding", Value: "identity"})
}

// staysThere says whether an answer's header never reaches a client: it describes the
// real organisation or our connection to the upstream, or is one that only we may send.
func staysThere(name string) bool {
	switch name {
	case "Set-Cookie", "Anthropic-Organization-Id", "Openai-Organization", "Openai-Project", "Content-Length", "Alt-Svc", "Via", "Server",
		"Cf-Ray", "Cf-Cache-Status", "Strict-Transport-Security", "Nel", "Report-To":
		return true
	}
	return ofOneHop(name) || hasAnyPrefix(name, stayingThere)
}

// stayingThere are families of such headers: the limits of our real key, and ours.
var stayingThere = []string{"Anthropic-Ratelimit-", "X-Ratelimit-", "X-Litellm-", "X-Llmproxy-"}

// forClient makes of an upstream's headers, in their place, the client's: it takes some
// away and adds ours.
func forClient(h head.Lines, requestID, modelID string) head.Lines {
	var connection []string
	for _, l := range h {
		if l.Name == "Connection" {
			connection = append(connection, l.Value)
		}
	}
	h = slices.DeleteFunc(h, func(l head.Line) bool { return staysThere(l.Name) || listed(connection, l.Name) })
	return append(h,
		head.Line{Name: "X-Llmproxy-Request-Id", Value: requestID},
		head.Line{Name: "X-Litellm-Call-Id", Value: requestID},
		head.Line{Name: "X-Litellm-Model-Id", Value: modelID})
}

// OurHeaders is how many lines we add to an answer's header at most.
const OurHeaders = 8

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
