package proxy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/head"
)

// TestHeadersThatLeave has a client send one header of each kind.
func TestHeadersThatLeave(t *testing.T) {
	t.Parallel()
	h := Header{"Anthropic-Beta": {"a", "b"}, "Connection": {"X-Hop, keep-alive"}, "X-Key": {"it is " + testKey().Reveal()}}
	for _, name := range []string{
		"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Ocp-Apim-Subscription-Key", "Cookie", "Host", "Content-Length", "Accept-Encoding",
		"Expect", "Forwarded", "Via", "X-Real-Ip", "X-Request-Id", "X-Forwarded-For", "X-Litellm-Tags", "X-Llmproxy-Any", "Transfer-Encoding", "X-Hop",
	} {
		h[name] = []string{"one"}
	}
	want := head.Lines{{Name: "Anthropic-Beta", Value: "a"}, {Name: "Anthropic-Beta", Value: "b"}, {Name: "Accept-Encoding", Value: "identity"}}
	if diff := cmp.Diff(want, forUpstream(h, testKey())); diff != "" {
		t.Errorf("what leaves (-want +got):\n%s", diff)
	}
}

// TestHeadersThatReachTheClient has an upstream send one header of each kind.
func TestHeadersThatReachTheClient(t *testing.T) {
	t.Parallel()
	h := head.Lines{{Name: "Content-Type", Value: "text/plain"}, {Name: "X-Hop", Value: "one"}, {Name: "Connection", Value: "keep-alive, x-hop"}}
	for _, name := range []string{
		"Set-Cookie", "Anthropic-Organization-Id", "Openai-Organization", "Openai-Project", "Content-Length", "Alt-Svc", "Via", "Server", "Cf-Ray",
		"Cf-Cache-Status", "Strict-Transport-Security", "Nel", "Report-To", "Anthropic-Ratelimit-Any", "X-Ratelimit-Any", "X-Litellm-Call-Id",
		"X-Llmproxy-Request-Id", "Keep-Alive", "Trailer",
	} {
		h = append(h, head.Line{Name: name, Value: "one"})
	}
	h = append(h, head.Line{Name: "Request-Id", Value: "req_up"})
	want := head.Lines{
		{Name: "Content-Type", Value: "text/plain"},
		{Name: "Request-Id", Value: "req_up"},
		{Name: "X-Llmproxy-Request-Id", Value: "req_1"},
		{Name: "X-Litellm-Call-Id", Value: "req_1"},
		{Name: "X-Litellm-Model-Id", Value: "d1"},
	}
	if diff := cmp.Diff(want, forClient(h, "req_1", "d1")); diff != "" {
		t.Errorf("what reaches the client (-want +got):\n%s", diff)
	}
}
