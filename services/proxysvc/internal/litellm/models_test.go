package litellm_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/litellm"
)

func TestModelInfo(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	const listed = `{"model_name":"claude-sonnet-5","litellm_params":{"model":"anthropic/claude-sonnet-5"},"model_info":{"id":"d-1","db_model":false,
		"key":"claude-sonnet-5","litellm_provider":"anthropic","mode":"chat","max_tokens":128000,"max_output_tokens":128000,"max_input_tokens":null,
		"input_cost_per_token":0.000002,"output_cost_per_token":0.00001,"cache_read_input_token_cost":2e-7,
		"cache_creation_input_token_cost":0.0000025,"cache_creation_input_token_cost_above_1hr":0.000004}}`
	for _, path := range []string{"/model/info", "/v1/model/info"} {
		s.want(s.must(http.MethodGet, path+"?litellm_model_id=d-1", ""), `{"data":[`+listed+`]}`)
	}
	data, _ := s.must(http.MethodGet, "/model/info", "")["data"].([]any)
	if len(data) != 3 {
		t.Fatalf("data %v", data)
	}
	for i, want := range []string{`{"input_cost_per_token":0.000002}`, `{"input_cost_per_token":0.000001}`, `{"input_cost_per_token":null}`} {
		row, _ := data[i].(map[string]any)
		info, _ := row["model_info"].(map[string]any)
		s.want(pick(info, "input_cost_per_token"), want)
	}
	code, got := s.send(http.MethodGet, "/model/info?litellm_model_id=d-9", master, "")
	s.refused(code, got, 400, envelope{"Model id = d-9 not found on litellm proxy", "bad_request_error", "None", "400"})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.want(s.must(http.MethodGet, "/health?model=cheap", ""), `{"healthy_endpoints":[{"model":"anthropic/claude-sonnet-5","model_id":"d-2"}],
		"unhealthy_endpoints":[],"healthy_count":1,"unhealthy_count":0}`)
}

func TestCalculateSpend(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, tt := range []struct{ name, body, want string }{
		{"Anthropic's usage", `{"completion_response":{"model":"claude-sonnet-5","usage":{"input_tokens":1000,"output_tokens":100,
			"cache_read_input_tokens":10000,"cache_creation_input_tokens":3000,"cache_creation":{"ephemeral_5m_input_tokens":2000,"ephemeral_1h_input_tokens":1000}}}}`, `0.014`},
		{"OpenAI's usage counts caches into the prompt", `{"completion_response":{"model":"claude-sonnet-5","usage":{"prompt_tokens":11000,"completion_tokens":100,
			"prompt_tokens_details":{"cached_tokens":10000}}}}`, `0.005`},
		{"LiteLLM's usage of Anthropic", `{"completion_response":{"model":"claude-sonnet-5","usage":{"prompt_tokens":13000,"completion_tokens":100,
			"cache_read_input_tokens":10000,"cache_creation_input_tokens":2000}}}`, `0.01`},
		{"the Responses API", `{"completion_response":{"model":"claude-sonnet-5","usage":{"input_tokens":11000,"output_tokens":100,
			"input_tokens_details":{"cached_tokens":10000}}}}`, `0.005`},
		{"a deployment's own price", `{"completion_response":{"model":"cheap","usage":{"input_tokens":1000,"output_tokens":1000}}}`, `0.006`},
		{"a prompt, four bytes to the token", `{"model":"claude-sonnet-5","messages":[{"role":"user","content":"` + strings.Repeat("x", 4000-31-2) + `"}]}`, `0.002`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			s.want(s.must(http.MethodPost, "/spend/calculate", tt.body), `{"cost":`+tt.want+`}`)
		})
	}
	for body, message := range map[string]string{
		`{}`:                                   "Bad Request - Either 'model' or 'completion_response' must be provided",
		`{"model":"m"}`:                        "Bad Request - messages must be provided if 'model' is provided",
		`{"model":"mystery","messages":[]}`:    `model "mystery" has no price`,
		`{"completion_response":{"usage":{}}}`: `model "" has no price`,
		`{"completion_response":{"model":"cheap","usage":{"input_tokens":-5}}}`: "usage: its counts are negative or too large",
	} {
		code, got := s.send(http.MethodPost, "/spend/calculate", master, body)
		s.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
}

func TestBodiesAndCredentials(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, body := range []string{`{"a":`, `[]`, `"x"`, `null`, `{} {}`} {
		code, got := s.send(http.MethodPost, "/key/generate", master, body)
		s.refused(code, got, 400, envelope{"the request body must be a JSON object", "invalid_request_error", "request_body", "400"})
	}
	for _, header := range []string{"X-Litellm-Api-Key", "X-Api-Key"} {
		if code, got := s.do(http.MethodGet, "/key/list", "", http.Header{header: {master}}); code != 200 {
			t.Errorf("a master key in %s: %d %v", header, code, got)
		}
	}
	code, got := s.send(http.MethodGet, "/key/list?page=x", master, "")
	if problem, _ := got["error"].(map[string]any); code != 400 || problem["type"] != "invalid_request_error" {
		t.Errorf("a page that is no number: %d %v", code, got)
	}
	s.want(s.must(http.MethodPost, "/key/health", `{}`), `{"key":"healthy","logging_callbacks":null}`)
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	draining := make(chan struct{})
	var broken, down error
	h := func() *litellm.Readiness {
		return &litellm.Readiness{
			Draining: draining, Ready: func(context.Context) error { return broken }, Ping: func(context.Context) error { return down },
		}
	}
	ask := func(h http.Handler) (int, map[string]any) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/health/readiness", nil))
		got, _ := decode(t, w.Body).(map[string]any)
		return w.Code, got
	}
	if code, got := ask(h()); code != 200 || got["status"] != "healthy" || got["db"] != "connected" {
		t.Errorf("%d %v", code, got)
	}
	one := h()
	ask(one)
	down = errors.New("dial tcp 10.0.0.7:5432: connection refused")
	if code, got := ask(h()); code != 200 || got["db"] != "Not connected" {
		t.Errorf("without the database: %d %v", code, got)
	}
	if _, got := ask(one); got["db"] != "connected" {
		t.Errorf("the database is asked by every call: %v", got)
	}
	broken = errors.New("no log is open")
	if code, got := ask(h()); code != 503 || got["status"] != "starting" {
		t.Errorf("at the start: %d %v", code, got)
	}
	close(draining)
	if code, got := ask(h()); code != 503 || got["status"] != "shutting_down" {
		t.Errorf("at the end: %d %v", code, got)
	}
}

func TestAURLThatIsNoTextIsRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{}`)
	for _, token := range []string{master, key} {
		code, got := s.send(http.MethodGet, "/key/info?key=%ff", token, "")
		s.refused(code, got, 400, envelope{"the URL is not UTF-8", "invalid_request_error", "None", "400"})
	}
}
