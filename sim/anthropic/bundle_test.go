package anthropic_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

const realKey = "sk-ant-real"

// bundle is a simulator on a loopback port.
type bundle struct {
	*anthropic.Server
	http *httptest.Server
}

func start(t *testing.T, opts anthropic.Options) bundle {
	t.Helper()
	opts.APIKey = realKey
	s := anthropic.New(opts)
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return bundle{s, ts}
}

// request builds a request with the usual headers; header overrides them, an
// empty value removes one.
func (b bundle) request(t *testing.T, method, path, body string, header map[string]string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-api-key", realKey)
	r.Header.Set("anthropic-version", "2023-06-01")
	for name, value := range header {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	return r
}

// do returns the answer and its body. The body may end early; err says so.
func (b bundle) do(t *testing.T, r *http.Request) (*http.Response, []byte, error) {
	t.Helper()
	resp, err := b.http.Client().Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// post sends a message request that must be answered whole.
func (b bundle) post(t *testing.T, body string) (*http.Response, []byte) {
	t.Helper()
	resp, answer, err := b.do(t, b.request(t, "POST", "/v1/messages", body, nil))
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return resp, answer
}

// say is a request whose last user message is text.
func say(text string, extra string) string {
	quoted, _ := json.Marshal(text)
	return `{"model":"claude-haiku-4-5","max_tokens":1000,"messages":[{"role":"user","content":` + string(quoted) + `}]` + extra + `}`
}

// event is one event of a stream.
type event struct{ name, data string }

func events(t *testing.T, stream []byte) []event {
	t.Helper()
	var list []event
	err := sse.NewSplitter(0).Feed(stream, func(ev sse.Event) error {
		list = append(list, event{string(ev.Name), string(ev.Data)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func count(list []event, name string) int {
	n := 0
	for _, ev := range list {
		if ev.name == name {
			n++
		}
	}
	return n
}

func decode[T any](t *testing.T, p []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(p, &v); err != nil {
		t.Fatalf("decode %s: %v", p, err)
	}
	return v
}

type apiError struct {
	Type  string `json:"type"`
	Error struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"error"`
	RequestID string `json:"request_id"`
}

type reply struct {
	ID      string `json:"id"`
	Model   string `json:"model"`
	Content []struct {
		Type  string          `json:"type"`
		Text  string          `json:"text"`
		Name  string          `json:"name"`
		Input json.RawMessage `json:"input"`
	} `json:"content"`
	StopReason string          `json:"stop_reason"`
	Usage      anthropic.Usage `json:"usage"`
}
