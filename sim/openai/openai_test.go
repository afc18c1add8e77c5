package openai_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

func TestCredentialsAreChecked(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for _, tt := range []struct {
		name   string
		header map[string]string
		status int
		code   string
	}{
		{"the key as a bearer token", nil, 200, ""},
		{"the key in x-api-key", map[string]string{"authorization": "", "x-api-key": realKey}, 401, ""},
		{"the key as a basic password", map[string]string{"authorization": "Basic " + realKey}, 401, ""},
		{"no key", map[string]string{"authorization": ""}, 401, ""},
		{"an empty token", map[string]string{"authorization": "Bearer "}, 401, ""},
		{"a virtual key", map[string]string{"authorization": "Bearer sk-virtual-0123456789"}, 401, "invalid_api_key"},
		{"some other text", map[string]string{"authorization": "Bearer nonsense"}, 401, "invalid_api_key"},
		{"a virtual key in another header", map[string]string{"x-custom": "key=sk-virtual"}, 401, "invalid_api_key"},
		{"a virtual key in x-api-key", map[string]string{"x-api-key": "sk-virtual"}, 401, "invalid_api_key"},
		{"a virtual key in a cookie", map[string]string{"cookie": "a=b; c=sk-virtual"}, 401, "invalid_api_key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body, err := b.do(t, b.request(t, "POST", chatPath, ask(chatPath, "gpt-5", "hi", ""), tt.header))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status == 200 {
				return
			}
			got := decode[apiError](t, body).Error
			if got.Type != "invalid_request_error" || value(got.Code) != tt.code || got.Param != nil {
				t.Errorf("error = %s, want code %q", body, tt.code)
			}
			if bytes.Contains(body, []byte("virtual-0123456789")) {
				t.Errorf("error shows the key: %s", body)
			}
		})
	}
}

func TestHeadersTellAboutTheAccount(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	always := []string{"x-request-id", "openai-version", "openai-processing-ms", "set-cookie", "cf-ray"}
	account := []string{"openai-organization", "openai-project", "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"}
	for _, body := range []string{ask(chatPath, "gpt-5", "hi", ""), ask(chatPath, "gpt-5", "hi", streaming), "{"} {
		resp, _ := b.post(t, chatPath, body)
		for _, name := range append(account, always...) {
			if resp.Header.Get(name) == "" {
				t.Errorf("%d: header %s is missing", resp.StatusCode, name)
			}
		}
		if len(resp.Header.Values("set-cookie")) != 2 {
			t.Errorf("set-cookie = %q, want two", resp.Header.Values("set-cookie"))
		}
	}
	resp, _, _ := b.do(t, b.request(t, "GET", "/v1/models", "", map[string]string{"authorization": "Bearer sk-other"}))
	if resp.Header.Get("x-request-id") == "" || resp.Header.Get("openai-organization") != "" {
		t.Errorf("headers of an unknown key = %v, want a request id and no organization", resp.Header)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	chat := func(extra string) string { return ask(chatPath, "gpt-5", "hi", extra) }
	resp := func(extra string) string { return ask(responsesPath, "gpt-5", "hi", extra) }
	huge := strings.Repeat("x", 4*400_000)
	for _, tt := range []struct {
		name, path, body string
		status           int
		param, code      string
	}{
		{"not JSON", chatPath, `{`, 400, "", ""},
		{"no model", chatPath, `{"messages":[{"role":"user","content":"hi"}]}`, 400, "", ""},
		{"an unknown model", chatPath, ask(chatPath, "claude", "hi", ""), 404, "", "model_not_found"},
		{"no messages", chatPath, `{"model":"gpt-5","messages":[]}`, 400, "messages", "missing_required_parameter"},
		{"a strange role", chatPath, `{"model":"gpt-5","messages":[{"role":"robot","content":"hi"}]}`, 400, "messages", "invalid_value"},
		{"no choices", chatPath, chat(`,"n":0`), 400, "n", ""},
		{"too many choices", chatPath, chat(`,"n":129`), 400, "n", ""},
		{"max_tokens of a reasoning model", chatPath, chat(`,"max_tokens":10`), 400, "max_tokens", "unsupported_parameter"},
		{"max_tokens of another", chatPath, ask(chatPath, "gpt-4.1-mini", "hi", `,"max_tokens":10`), 200, "", ""},
		{"a limit of zero", chatPath, chat(`,"max_completion_tokens":0`), 400, "max_completion_tokens", "integer_below_min_value"},
		{"stream_options without stream", chatPath, chat(`,"stream_options":{"include_usage":true}`), 400, "stream_options", ""},
		{"a strange tier", chatPath, chat(`,"service_tier":"gold"`), 400, "service_tier", "invalid_value"},
		{"a prompt beyond the context", chatPath, ask(chatPath, "gpt-5", huge, ""), 400, "messages", "context_length_exceeded"},
		{"an unknown script", chatPath, ask(chatPath, "gpt-5", "[[sim:eror=500]]", ""), 400, "", ""},
		{"an unknown script value", chatPath, ask(chatPath, "gpt-5", "[[sim:cut=3]]", ""), 400, "", ""},
		{"a script number out of range", chatPath, ask(chatPath, "gpt-5", "[[sim:error=200]]", ""), 400, "", ""},
		{"unknown fields", chatPath, chat(`,"metadata":{"a":"b"},"temperature":0.5`), 200, "", ""},
		{"a response without a model", responsesPath, `{"input":"hi"}`, 400, "model", "missing_required_parameter"},
		{"a response of an unknown model", responsesPath, ask(responsesPath, "gpt-2", "hi", ""), 404, "", "model_not_found"},
		{"a response without input", responsesPath, `{"model":"gpt-5"}`, 400, "input", "missing_required_parameter"},
		{"a response with a low limit", responsesPath, resp(`,"max_output_tokens":15`), 400, "max_output_tokens", "integer_below_min_value"},
		{"an input beyond the context", responsesPath, ask(responsesPath, "gpt-5", huge, ""), 400, "input", "context_length_exceeded"},
		{"an unknown previous response", responsesPath, resp(`,"previous_response_id":"resp_x"`), 400, "previous_response_id", "previous_response_not_found"},
		{"an unknown item", responsesPath, `{"model":"gpt-5","input":[{"type":"item_reference","id":"msg_x"}]}`, 404, "input", ""},
		{"a result of no call", responsesPath, `{"model":"gpt-5","input":[{"type":"function_call_output","call_id":"call_x","output":"y"}]}`, 400, "input", ""},
		{"a path with v1 twice", "/v1" + chatPath, chat(""), 404, "", ""},
		{"a path that is not there", "/v1/embeddings", `{}`, 404, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body := b.post(t, tt.path, tt.body)
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status == 200 {
				return
			}
			got := decode[apiError](t, body).Error
			if got.Type != "invalid_request_error" || value(got.Param) != tt.param || value(got.Code) != tt.code {
				t.Errorf("error = %s, want param %q, code %q", body, tt.param, tt.code)
			}
			if !bytes.Contains(body, []byte(`"param":`)) || !bytes.Contains(body, []byte(`"code":`)) {
				t.Errorf("error = %s, want param and code even if null", body)
			}
		})
	}
}

func TestModelsAreListed(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	get := func(path string) (int, []byte) {
		resp, body, _ := b.do(t, b.request(t, "GET", path, "", nil))
		return resp.StatusCode, body
	}
	_, body := get("/v1/models")
	list := decode[struct {
		Object string
		Data   []model
	}](t, body)
	var ids []string
	for _, m := range list.Data {
		ids = append(ids, m.ID)
		_, one := get("/v1/models/" + m.ID)
		if got := decode[model](t, one); got != m || m.Object != "model" || m.Created < 1.7e9 || m.OwnedBy == "" {
			t.Errorf("model %s = %+v, want %+v", m.ID, got, m)
		}
	}
	want := []string{"gpt-6-sol", "gpt-5.4", "gpt-5", "gpt-5-mini", "o4-mini", "gpt-4.1-mini"}
	if diff := cmp.Diff(want, ids); diff != "" || list.Object != "list" {
		t.Errorf("%s of models (-want +got):\n%s", list.Object, diff)
	}
	if status, _ := get("/v1/models/gpt-5-2025-08-07"); status != 200 {
		t.Errorf("a dated model = %d, want 200", status)
	}
	if status, body := get("/v1/models/claude"); status != 404 || value(decode[apiError](t, body).Error.Code) != "model_not_found" {
		t.Errorf("an unknown model = %d %s, want 404 model_not_found", status, body)
	}
}

func TestRequestsAreRecordedWithoutCredentials(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	body := ask(chatPath, "gpt-5", "hi", "")
	_, _, _ = b.do(t, b.request(t, "POST", chatPath+"?a=b", body, map[string]string{"x-leak": "a, sk-virtual"}))
	_, _, _ = b.do(t, b.request(t, "HEAD", "/v1/hello", "", map[string]string{"authorization": "Bearer sk-virtual-wxyz"}))

	rec := httptest.NewRecorder()
	b.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/__requests", nil))
	got := decode[[]openai.Request](t, rec.Body.Bytes())
	if len(got) != 2 {
		t.Fatalf("recorded %d requests, want 2", len(got))
	}
	sum := sha256.Sum256([]byte(body))
	if got[0].BodySHA256 != hex.EncodeToString(sum[:]) || got[0].BodyLength != len(body) || got[0].Query != "a=b" {
		t.Errorf("first request = %+v, want the hash and length of the body and the query", got[0])
	}
	want := []string{"Bearer real", "a, other", "6789", "Bearer other", "wxyz"}
	have := []string{
		got[0].Header.Get("authorization"), got[0].Header.Get("x-leak"), got[0].KeyLast4,
		got[1].Header.Get("authorization"), got[1].KeyLast4,
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	if bytes.Contains(rec.Body.Bytes(), []byte("sk-")) {
		t.Error("the record holds a key")
	}
}

func TestResetForgets(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	long := strings.Repeat("word", 100)
	_, body := b.post(t, responsesPath, ask(responsesPath, "gpt-5", long, ""))
	id := decode[response](t, body).ID
	resp, _, _ := b.do(t, b.request(t, "POST", "/__reset", "", nil))
	if resp.StatusCode != http.StatusNoContent || len(b.Ledger()) != 0 || len(b.Requests()) != 0 {
		t.Errorf("after reset (%d): %d entries, %d requests, want none", resp.StatusCode, len(b.Ledger()), len(b.Requests()))
	}
	resp, _ = b.post(t, responsesPath, ask(responsesPath, "gpt-5", long, `,"previous_response_id":"`+id+`"`))
	if resp.StatusCode != 400 {
		t.Errorf("a response from before = %d, want 400", resp.StatusCode)
	}
	_, body = b.post(t, responsesPath, ask(responsesPath, "gpt-5", long, ""))
	if got := decode[response](t, body).Usage.Details.Cached; got != 0 {
		t.Errorf("cached tokens = %d, want none", got)
	}
}

func TestAnyKeyPassesWhenNoneIsSet(t *testing.T) {
	t.Parallel()
	b := serve(t, openai.Options{})
	resp, _, _ := b.do(t, b.request(t, "GET", "/v1/models", "", map[string]string{"authorization": "Bearer anything"}))
	if resp.StatusCode != 200 {
		t.Errorf("status = %d, want 200", resp.StatusCode)
	}
}
