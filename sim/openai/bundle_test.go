package openai_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

const (
	realKey       = "sk-real-0123456789"
	chatPath      = "/v1/chat/completions"
	responsesPath = "/v1/responses"
	streaming     = `,"stream":true`
	reporting     = `,"stream":true,"stream_options":{"include_usage":true}`
)

// parameters is the JSON schema of a tool.
const parameters = `{"type":"object","properties":{"command":{"type":"string"},"timeout":{"type":"integer"},"mode":{"enum":["fast","slow"]}},"required":["command","mode","timeout"]}`

const (
	chatTool     = `,"tools":[{"type":"function","function":{"name":"bash","parameters":` + parameters + `}}]`
	responseTool = `,"tools":[{"type":"web_search"},{"type":"function","name":"bash","parameters":` + parameters + `}]`
)

// bundle is a simulator on a loopback port.
type bundle struct {
	*openai.Server
	http *httptest.Server
}

func start(t *testing.T, opts openai.Options) bundle {
	t.Helper()
	if opts.APIKey == "" {
		opts.APIKey = realKey
	}
	return serve(t, opts)
}

// serve is start without a key, if none is given.
func serve(t *testing.T, opts openai.Options) bundle {
	t.Helper()
	opts.Now = func() time.Time { return time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC) }
	s := openai.New(opts)
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return bundle{s, ts}
}

// request builds a request with the key; header overrides it, an empty value
// removes one.
func (b bundle) request(t *testing.T, method, path, body string, header map[string]string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.http.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("authorization", "Bearer "+realKey)
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

// post sends a request that must be answered whole.
func (b bundle) post(t *testing.T, path, body string) (*http.Response, []byte) {
	t.Helper()
	resp, answer, err := b.do(t, b.request(t, "POST", path, body, nil))
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return resp, answer
}

// ask is a request of either API whose last user message is text.
func ask(path, model, text, extra string) string {
	quoted, _ := json.Marshal(text)
	if path == chatPath {
		return `{"model":"` + model + `","messages":[{"role":"user","content":` + string(quoted) + `}]` + extra + `}`
	}
	return `{"model":"` + model + `","input":` + string(quoted) + extra + `}`
}

// toolOf is a tool as the API of path takes it.
func toolOf(path string) string {
	if path == chatPath {
		return chatTool
	}
	return responseTool
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

func decode[T any](t *testing.T, p []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(p, &v); err != nil {
		t.Fatalf("decode %s: %v", p, err)
	}
	return v
}

type apiError struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// chatReply is a completion or a chunk.
type chatReply struct {
	ID          string `json:"id"`
	Model       string `json:"model"`
	ServiceTier string `json:"service_tier"`
	Choices     []struct {
		Index        int          `json:"index"`
		Message      chatMessage  `json:"message"`
		Delta        *chatMessage `json:"delta"`
		FinishReason *string      `json:"finish_reason"`
	} `json:"choices"`
	Usage *chatUsage `json:"usage"`
}

type chatMessage struct {
	Content   *string `json:"content"`
	ToolCalls []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

type chatUsage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Total      int64 `json:"total_tokens"`
	Details    struct {
		Cached  int64 `json:"cached_tokens"`
		Written int64 `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	Output struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

// response is a response, or what an event carries of one.
type response struct {
	ID          string `json:"id"`
	Status      string `json:"status"`
	ServiceTier string `json:"service_tier"`
	Output      []struct {
		ID        string `json:"id"`
		Type      string `json:"type"`
		Status    string `json:"status"`
		CallID    string `json:"call_id"`
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
		Encrypted string `json:"encrypted_content"`
		Content   []struct {
			Text string `json:"text"`
		} `json:"content"`
	} `json:"output"`
	Usage *struct {
		Input   int64 `json:"input_tokens"`
		Output  int64 `json:"output_tokens"`
		Total   int64 `json:"total_tokens"`
		Details struct {
			Cached  int64 `json:"cached_tokens"`
			Written int64 `json:"cache_write_tokens"`
		} `json:"input_tokens_details"`
		OutputDetails struct {
			Reasoning int64 `json:"reasoning_tokens"`
		} `json:"output_tokens_details"`
	} `json:"usage"`
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
	Incomplete *struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
}

// usage is what a client saw reported, in the form of the ledger.
func (r *chatReply) usage() openai.Usage {
	u := r.Usage
	return openai.Usage{
		InputTokens: u.Prompt, CachedTokens: u.Details.Cached, CacheWriteTokens: u.Details.Written,
		OutputTokens: u.Completion, ReasoningTokens: u.Output.Reasoning, ServiceTier: r.ServiceTier,
	}
}

func (r *response) usage() openai.Usage {
	u := r.Usage
	return openai.Usage{
		InputTokens: u.Input, CachedTokens: u.Details.Cached, CacheWriteTokens: u.Details.Written,
		OutputTokens: u.Output, ReasoningTokens: u.OutputDetails.Reasoning, ServiceTier: r.ServiceTier,
	}
}

// usageOf is the usage that an answer of path reported, streamed or not.
func usageOf(t *testing.T, path string, streamed bool, body []byte) openai.Usage {
	t.Helper()
	if path == chatPath {
		if streamed {
			list := events(t, body)
			body = []byte(list[len(list)-2].data)
		}
		r := decode[chatReply](t, body)
		return r.usage()
	}
	if streamed {
		list := events(t, body)
		r := decode[struct{ Response response }](t, []byte(list[len(list)-1].data))
		return r.Response.usage()
	}
	r := decode[response](t, body)
	return r.usage()
}
