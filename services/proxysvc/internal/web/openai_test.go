package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

// openAIStand is a stand whose gpt models are at an OpenAI simulator.
type openAIStand struct {
	*stand
	openai *openai.Server
	direct string
}

func newOpenAIStand(t *testing.T, edit func(*proxy.Key, *proxy.Settings)) *openAIStand {
	t.Helper()
	s := &openAIStand{stand: newStand(t, edit), openai: openai.New(openai.Options{APIKey: realKey})}
	server := httptest.NewServer(s.openai)
	t.Cleanup(server.Close)
	s.direct = server.URL
	s.router.Replace(s.routing(fmt.Sprintf(`
model_list:
  - {model_name: "claude-*", litellm_params: {model: "anthropic/claude-*"}}
  - {model_name: "gpt-*", litellm_params: {model: "openai/gpt-*", api_key: %s, api_base: %q}}
  - {model_name: o4-mini, litellm_params: {model: openai/o4-mini, api_key: %s, api_base: "%s/v1"}}
`, realKey, server.URL, realKey, server.URL)))
	return s
}

func (s *openAIStand) at(url, key, path, body string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header = http.Header{
		"Authorization": {"Bearer " + key}, "Content-Type": {"application/json"}, "User-Agent": {"OpenAI/JS 7"},
		"Openai-Organization": {"org-of-the-sandbox"}, "Accept-Encoding": {"identity"},
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() }) // the test is over
	return resp
}

func (s *openAIStand) call(path, body string) (*http.Response, string) {
	s.t.Helper()
	resp := s.at(s.proxy.URL, virtualKey, path, body)
	return resp, read(s.t, resp)
}

// checkOpenAI holds the row against what the simulator says was used.
func (s *openAIStand) checkOpenAI(r ledger.Row) {
	s.t.Helper()
	entries := s.openai.Ledger()
	if len(entries) != 1 || entries[0].ID != r.MessageID {
		s.t.Fatalf("the simulator answered %+v, the row is of %q", entries, r.MessageID)
	}
	u := entries[0].Usage
	want := pricing.Usage{
		InputTokens: u.InputTokens - u.CachedTokens - u.CacheWriteTokens, CacheReadTokens: u.CachedTokens, CacheWrite5mTokens: u.CacheWriteTokens,
		OutputTokens: u.OutputTokens, ReasoningTokens: u.ReasoningTokens, ServiceTier: r.Usage.ServiceTier,
	}
	if r.Usage != want {
		s.t.Errorf("usage %+v, the simulator's is %+v", r.Usage, want)
	}
	cost, err := s.book.Cost(r.Model, want, r.StartedAt)
	if err != nil || cost != r.Cost || cost == 0 || r.Estimated {
		s.t.Errorf("cost %d, want %d, %v; estimated %v", r.Cost, cost, err, r.Estimated)
	}
}

func chat(model, more, say string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hello %s"}]%s}`, model, say, more)
}

func TestOpenAIAnswersPassAndAreBilled(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ path, body string }{
		"a chat":                   {"/v1/chat/completions", chat("gpt-5-mini", "", "")},
		"a chat stream with usage": {"/v1/chat/completions", chat("gpt-5-mini", `,"stream":true,"stream_options":{"include_usage":true}`, "")},
		"a prefixed name":          {"/v1/chat/completions", chat("openai/gpt-4.1-mini", "", "")},
		"two answers":              {"/v1/chat/completions", chat("gpt-4.1-mini", `,"n":2,"stream":true,"stream_options":{"include_usage":true}`, "")},
		"reasoning":                {"/v1/chat/completions", chat("o4-mini", `,"max_completion_tokens":2000`, "")},
		"tools":                    {"/v1/chat/completions", chat("gpt-5", `,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]`, "")},
		"a response":               {"/v1/responses", `{"model":"gpt-5","input":"Hello"}`},
		"a response stream":        {"/v1/responses", `{"model":"gpt-6-sol","input":"Hello","stream":true,"store":false}`},
		"an incomplete response":   {"/v1/responses", `{"model":"gpt-4.1-mini","input":"[[sim:output_tokens=400]]","stream":true,"max_output_tokens":16}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newOpenAIStand(t, nil)
			resp, text := s.call(row.path, row.body)
			if resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, text)
			}
			r := s.row()
			if r.Status != ledger.Completed {
				t.Errorf("status %s", r.Status)
			}
			s.checkOpenAI(r)
			for _, name := range []string{"Openai-Organization", "X-Ratelimit-Limit-Requests", "Set-Cookie"} {
				if v := resp.Header.Get(name); v != "" {
					t.Errorf("%s: %s reached the client", name, v)
				}
			}
			got := s.openai.Requests()[0].Header
			if text := fmt.Sprint(got); strings.Contains(text, virtualKey) || strings.Contains(text, "org-of-the-sandbox") {
				t.Errorf("the upstream got %v", got)
			}
		})
	}
}

// TestUsageIsAskedForAndWithheld compares the stream of a client that did not
// ask for usage with the one that the simulator gives directly: the same chunks,
// none of them with usage, and yet the ledger has it.
func TestUsageIsAskedForAndWithheld(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", `,"stream_options":null`, `,"stream_options":{}`, `,"stream_options":{"include_usage":false}`, `,"stream_options":{"include_obfuscation":false}`} {
		s := newOpenAIStand(t, nil)
		body := chat("gpt-5-mini", `,"stream":true`+options, "")
		_, proxied := s.call("/v1/chat/completions", body)
		row := s.row()
		s.checkOpenAI(row)
		if strings.Contains(proxied, `"usage":{`) || !strings.HasSuffix(proxied, "data: [DONE]\n\n") {
			t.Errorf("%s: the client got %s", options, proxied)
		}
		direct := read(t, s.at(s.direct, realKey, "/v1/chat/completions", body))
		if a, b := strings.Count(direct, "data: "), strings.Count(proxied, "data: "); a != b {
			t.Errorf("%s: %d chunks directly, %d through the proxy", options, a, b)
		}
	}
}

func TestOpenAIErrors(t *testing.T) {
	t.Parallel()
	s := newOpenAIStand(t, nil)
	type envelope struct {
		Error struct{ Message, Type, Code string }
	}
	for name, row := range map[string]struct {
		path, key, body string
		status          int
		code            string
	}{
		"a wrong key":               {"/v1/chat/completions", "sk-wrong", chat("gpt-5", "", ""), 401, "invalid_api_key"},
		"an unknown model":          {"/v1/responses", virtualKey, `{"model":"gpt5","input":""}`, 404, "model_not_found"},
		"a model of the other side": {"/v1/chat/completions", virtualKey, chat("claude-haiku-4-5", "", ""), 404, "model_not_found"},
		"an unpriced model":         {"/v1/chat/completions", virtualKey, chat("gpt-99", "", ""), 404, "model_not_found"},
		"no JSON":                   {"/v1/responses", virtualKey, `{`, 400, "invalid_request_error"},
		"an unknown response":       {"/v1/responses", virtualKey, `{"model":"gpt-5","input":"x","previous_response_id":"resp_x"}`, 404, "previous_response_not_found"},
		"the upstream's own":        {"/v1/chat/completions", virtualKey, chat("gpt-5", "", "[[sim:error=503]]"), 503, ""},
	} {
		resp := s.at(s.proxy.URL, row.key, row.path, row.body)
		var got envelope
		if err := json.Unmarshal([]byte(read(t, resp)), &got); err != nil || resp.StatusCode != row.status || got.Error.Message == "" || row.code != "" && got.Error.Code != row.code {
			t.Errorf("%s: %d %+v, %v", name, resp.StatusCode, got, err)
		}
	}
}

func TestAResponseIsContinuedByItsOwner(t *testing.T) {
	t.Parallel()
	s := newOpenAIStand(t, nil)
	var answer struct {
		ID string `json:"id"`
	}
	_, text := s.call("/v1/responses", `{"model":"gpt-5","input":"Hello"}`)
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.ID == "" {
		t.Fatalf("%v: %s", err, text)
	}
	resp, text := s.call("/v1/responses", fmt.Sprintf(`{"model":"gpt-5","input":"Go on","stream":true,"previous_response_id":%q}`, answer.ID))
	if resp.StatusCode != 200 || !strings.Contains(text, "response.completed") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestBrokenOpenAIStreams(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		path, body string
		status     ledger.Status
		cut        bool
	}{
		"a cut chat":             {"/v1/chat/completions", chat("gpt-5-mini", `,"stream":true`, "[[sim:cut=after:3]]"), ledger.Interrupted, true},
		"a cut response":         {"/v1/responses", `{"model":"gpt-5","stream":true,"input":"[[sim:cut=after:3]]"}`, ledger.Interrupted, true},
		"an error in a chat":     {"/v1/chat/completions", chat("gpt-5-mini", `,"stream":true`, "[[sim:stream_error=after:3]]"), ledger.Interrupted, false},
		"an error in a response": {"/v1/responses", `{"model":"gpt-5","stream":true,"input":"[[sim:stream_error=after:3]]"}`, ledger.Interrupted, false},
		"a failed response":      {"/v1/responses", `{"model":"gpt-5","stream":true,"input":"[[sim:fail=after:3]]"}`, ledger.Interrupted, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newOpenAIStand(t, nil)
			resp := s.at(s.proxy.URL, virtualKey, row.path, row.body)
			var got strings.Builder
			buf := make([]byte, 1024)
			var err error
			for err == nil {
				var n int
				n, err = resp.Body.Read(buf)
				got.Write(buf[:n])
			}
			if (err.Error() != "EOF") != row.cut {
				t.Errorf("the stream ended with %v", err)
			}
			r := s.row()
			if r.Status != row.status || !r.Estimated || r.Cost == 0 || r.Usage.InputTokens == 0 || r.Usage.OutputTokens == 0 {
				t.Errorf("row %+v after %s", r, got.String())
			}
		})
	}
}

func TestARevokedKeysOpenAIStreamEndsWithAnErrorOfItsKind(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/v1/chat/completions": `data: {"error":{"message":"invalid x-api-key"`,
		"/v1/responses":        "event: error\ndata: {\"type\":\"error\",\"code\":\"invalid_api_key\"",
	} {
		s := newOpenAIStand(t, nil)
		body := chat("gpt-5-mini", `,"stream":true`, "[[sim:stall=after:2]]")
		if path == "/v1/responses" {
			body = `{"model":"gpt-5","stream":true,"input":"[[sim:stall=after:2]]"}`
		}
		resp := s.at(s.proxy.URL, virtualKey, path, body)
		readUntil(t, resp.Body, "delta")
		s.running.Stop([]string{"key_1"}, nil, 9, "revoked")
		if text := read(t, resp); !strings.Contains(text, want) {
			t.Errorf("%s ended with %q", path, text)
		}
		if r := s.row(); r.Status != ledger.Stopped {
			t.Errorf("row %+v", r)
		}
	}
}
