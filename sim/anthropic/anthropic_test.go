package anthropic_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

func TestHeadersAreChecked(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	tests := []struct {
		name   string
		header map[string]string
		status int
		kind   string
	}{
		{"the key in x-api-key", nil, 200, ""},
		{"the key as a bearer token", map[string]string{"x-api-key": "", "authorization": "Bearer " + realKey}, 200, ""},
		{"the key in both places", map[string]string{"authorization": "Bearer " + realKey}, 401, "authentication_error"},
		{"no key", map[string]string{"x-api-key": ""}, 401, "authentication_error"},
		{"an empty bearer token", map[string]string{"x-api-key": "", "authorization": "Bearer "}, 401, "authentication_error"},
		{"a virtual key", map[string]string{"x-api-key": "sk-virtual"}, 401, "authentication_error"},
		{"some other text", map[string]string{"x-api-key": "nonsense"}, 401, "authentication_error"},
		{"a virtual key beside the real one", map[string]string{"authorization": "Bearer sk-virtual"}, 401, "authentication_error"},
		{"a virtual key in another header", map[string]string{"x-custom": "key=sk-virtual"}, 401, "authentication_error"},
		{"a virtual key in a cookie", map[string]string{"cookie": "a=b; c=sk-virtual"}, 401, "authentication_error"},
		{"no version", map[string]string{"anthropic-version": ""}, 400, "invalid_request_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body, err := b.do(t, b.request(t, "POST", "/v1/messages?beta=true", say("hi", ""), tt.header))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			for _, name := range []string{"request-id", "anthropic-organization-id", "anthropic-ratelimit-requests-remaining", "set-cookie"} {
				if resp.Header.Get(name) == "" {
					t.Errorf("header %s is missing", name)
				}
			}
			if tt.status == 200 {
				return
			}
			got := decode[apiError](t, body)
			if got.Type != "error" || got.Error.Type != tt.kind || got.RequestID != resp.Header.Get("request-id") {
				t.Errorf("error = %+v, want type %s", got, tt.kind)
			}
			if resp.Header.Get("x-should-retry") != "false" {
				t.Errorf("x-should-retry = %q, want false", resp.Header.Get("x-should-retry"))
			}
		})
	}
}

func TestRequestsAreChecked(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	tests := []struct {
		name, path, body string
		header           map[string]string
		status           int
	}{
		{"not JSON", "/v1/messages", `{`, nil, 400},
		{"no model", "/v1/messages", `{"max_tokens":1,` + hi + `}`, nil, 400},
		{"an unknown model", "/v1/messages", `{"model":"gpt-4","max_tokens":1,` + hi + `}`, nil, 404},
		{"no max_tokens", "/v1/messages", `{"model":"claude-opus-5-5",` + hi + `}`, nil, 400},
		{"max_tokens of zero", "/v1/messages", `{"model":"claude-opus-5-5","max_tokens":0,` + hi + `}`, nil, 400},
		{"max_tokens over the model's", "/v1/messages", `{"model":"claude-opus-5-5","max_tokens":128001,` + hi + `}`, nil, 400},
		{"no messages", "/v1/messages", `{"model":"claude-opus-5-5","max_tokens":1,"messages":[]}`, nil, 400},
		{"an empty message", "/v1/messages", `{"model":"claude-opus-5-5","max_tokens":1,"messages":[{"role":"user","content":[]}]}`, nil, 400},
		{"a block that is no object", "/v1/messages", `{"model":"claude-opus-5-5","max_tokens":1,"messages":[{"role":"user","content":["x"]}]}`, nil, 400},
		{"a strange role", "/v1/messages", `{"model":"claude-opus-5-5","max_tokens":1,"messages":[{"role":"tool","content":"x"}]}`, nil, 400},
		{"a place for an old model", "/v1/messages", say("hi", `,"inference_geo":"us"`), nil, 400},
		{"a temperature", "/v1/messages", say("hi", `,"temperature":0.5`), nil, 200},
		{"a temperature after 2026-10-21", "/v1/messages", say("hi", `,"temperature":0.5`), map[string]string{"anthropic-version": "2026-10-21"}, 400},
		{"a prompt beyond the context", "/v1/messages", say(strings.Repeat("x", 800_001), ""), nil, 400},
		{"an unknown script", "/v1/messages", say("[[sim:eror=529]]", ""), nil, 400},
		{"an unknown script value", "/v1/messages", say("[[sim:cut=3]]", ""), nil, 400},
		{"an unknown script in the header", "/v1/messages", say("hi", ""), map[string]string{"x-sim-script": "nonsense"}, 400},
		{"a thread that is unknown", "/v1/messages", say("hi", `,"thread":{"type":"continue","previous_message_id":"msg_x"}`), threads, 404},
		{"a thread without its beta", "/v1/messages", say("hi", `,"thread":{"type":"create"}`), map[string]string{"anthropic-beta": "some-beta"}, 400},
		{"a thread of an unknown type", "/v1/messages", say("hi", `,"thread":{"type":"fork"}`), threads, 400},
		{"a thread that is continued with tools", "/v1/messages", say("hi", bashTool+`,"thread":{"type":"continue","previous_message_id":"msg_x"}`), threads, 400},
		{"unknown fields", "/v1/messages", say("hi", `,"context_management":{"edits":[]}`), nil, 200},
		{"a path with v1 twice", "/v1/v1/messages", say("hi", ""), nil, 404},
		{"a path that is not there", "/v1/complete", `{}`, nil, 404},
		{"a count without max_tokens", "/v1/messages/count_tokens", `{"model":"claude-opus-5-5",` + hi + `}`, nil, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body, err := b.do(t, b.request(t, "POST", tt.path, tt.body, tt.header))
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Fatalf("status = %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status != 200 && decode[apiError](t, body).Type != "error" {
				t.Errorf("body = %s, want Anthropic's error shape", body)
			}
		})
	}
}

func TestAnswersNameTheDatedModel(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for asked, want := range map[string]string{
		"claude-haiku-4-5":           "claude-haiku-4-5-20251001",
		"claude-haiku-4-5-20251001":  "claude-haiku-4-5-20251001",
		"claude-sonnet-4-5":          "claude-sonnet-4-5-20250929",
		"claude-opus-4-5":            "claude-opus-4-5-20251101",
		"claude-opus-5-5":            "claude-opus-5-5",
		"claude-3-5-sonnet-20241022": "claude-3-5-sonnet-20241022",
	} {
		_, body := b.post(t, strings.Replace(say("hi", ""), "claude-haiku-4-5", asked, 1))
		if got := decode[reply](t, body); got.Model != want {
			t.Errorf("model of %s = %q, want %q", asked, got.Model, want)
		}
	}
}

func TestModelsArePaged(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	type page struct {
		Data []struct {
			Type, ID string
		} `json:"data"`
		HasMore bool    `json:"has_more"`
		FirstID *string `json:"first_id"`
		LastID  *string `json:"last_id"`
	}
	get := func(path string) page {
		t.Helper()
		_, body, _ := b.do(t, b.request(t, "GET", path, "", nil))
		return decode[page](t, body)
	}
	all := get("/v1/models?limit=1000")
	var walked []string
	for p := get("/v1/models?limit=3"); ; p = get("/v1/models?limit=3&after_id=" + *p.LastID) {
		for _, m := range p.Data {
			walked = append(walked, m.ID)
		}
		if !p.HasMore {
			break
		}
	}
	var want []string
	for _, m := range all.Data {
		want = append(want, m.ID)
	}
	if diff := cmp.Diff(want, walked); diff != "" {
		t.Errorf("ids of all pages (-whole list +pages):\n%s", diff)
	}
	before := get("/v1/models?limit=1&before_id=" + want[2])
	if len(before.Data) != 1 || before.Data[0].ID != want[1] || !before.HasMore {
		t.Errorf("page before %s = %+v, want %s and more", want[2], before, want[1])
	}
	resp, _, _ := b.do(t, b.request(t, "GET", "/v1/models/claude-haiku-4-5", "", nil))
	missing, _, _ := b.do(t, b.request(t, "GET", "/v1/models/gpt-4", "", nil))
	if resp.StatusCode != 200 || missing.StatusCode != 404 {
		t.Errorf("one model = %d, a missing one = %d, want 200 and 404", resp.StatusCode, missing.StatusCode)
	}
}

func TestRequestsAreRecordedWithoutCredentials(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	body := say("hi", "")
	_, _, _ = b.do(t, b.request(t, "POST", "/v1/messages?beta=true", body, map[string]string{"x-leak": "a, sk-virtual"}))
	_, _, _ = b.do(t, b.request(t, "HEAD", "/api/hello", "", map[string]string{"x-api-key": "", "authorization": "Bearer sk-virtual"}))

	rec := httptest.NewRecorder()
	b.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/__requests", nil))
	got := decode[[]anthropic.Request](t, rec.Body.Bytes())
	if len(got) != 2 {
		t.Fatalf("recorded %d requests, want 2", len(got))
	}
	sum := sha256.Sum256([]byte(body))
	if got[0].BodySHA256 != hex.EncodeToString(sum[:]) || got[0].BodyLength != len(body) || got[0].Query != "beta=true" {
		t.Errorf("first request = %+v, want the hash and length of the body and the query", got[0])
	}
	if got[0].Key != "real" || got[1].Key != "tual" {
		t.Errorf("keys end in %q and %q, want real and tual", got[0].Key, got[1].Key)
	}
	want := []string{"real", "a, other", "Bearer other"}
	have := []string{got[0].Header.Get("x-api-key"), got[0].Header.Get("x-leak"), got[1].Header.Get("authorization")}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	if bytes.Contains(rec.Body.Bytes(), []byte("sk-")) {
		t.Error("the record holds a key")
	}
}

func TestResetForgets(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	b.post(t, say("hi", ""))
	resp, _, _ := b.do(t, b.request(t, "POST", "/__reset", "", nil))
	if resp.StatusCode != http.StatusNoContent || len(b.Ledger()) != 0 || len(b.Requests()) != 0 {
		t.Errorf("after reset (%d): %d entries, %d requests, want none", resp.StatusCode, len(b.Ledger()), len(b.Requests()))
	}
}

func TestAnyKeyPassesWhenNoneIsSet(t *testing.T) {
	t.Parallel()
	s := anthropic.New(anthropic.Options{})
	r := httptest.NewRequestWithContext(context.Background(), "POST", "/v1/messages", strings.NewReader(say("hi", "")))
	r.Header.Set("x-api-key", "sk-anything")
	r.Header.Set("anthropic-version", "2023-06-01")
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	if rec.Code != 200 {
		t.Errorf("status = %d, want 200: %s", rec.Code, rec.Body)
	}
}
