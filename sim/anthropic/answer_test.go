package anthropic_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

func TestErrorsAreScripted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		script            string
		status            int
		kind, shouldRetry string
	}{
		{"error=400", 400, "invalid_request_error", "false"},
		{"error=402", 402, "billing_error", "false"},
		{"error=401", 401, "authentication_error", "false"},
		{"error=403", 403, "permission_error", "false"},
		{"error=404", 404, "not_found_error", "false"},
		{"error=408", 408, "invalid_request_error", "false"},
		{"error=409", 409, "conflict_error", "false"},
		{"error=413", 413, "request_too_large", "false"},
		{"error=429;retry_after=7", 429, "rate_limit_error", "true"},
		{"error=500;should_retry=false", 500, "api_error", "false"},
		{"error=502", 502, "api_error", "true"},
		{"error=503", 503, "api_error", "true"},
		{"error=504", 504, "timeout_error", "true"},
		{"error=529", 529, "overloaded_error", "true"},
		{"error=502;body=html", 502, "", "true"},
		{"error=503;body=empty", 503, "", "true"},
	}
	for _, tt := range tests {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			b := start(t, anthropic.Options{})
			resp, body := b.post(t, say("please [[sim:"+tt.script+"]]", streaming))
			if resp.StatusCode != tt.status || resp.Header.Get("x-should-retry") != tt.shouldRetry {
				t.Errorf("status = %d, x-should-retry = %q, want %d and %q",
					resp.StatusCode, resp.Header.Get("x-should-retry"), tt.status, tt.shouldRetry)
			}
			if tt.kind != "" && decode[apiError](t, body).Error.Type != tt.kind {
				t.Errorf("body = %s, want %s", body, tt.kind)
			}
			if tt.status == 429 && resp.Header.Get("retry-after") != "7" {
				t.Errorf("retry-after = %q, want 7", resp.Header.Get("retry-after"))
			}
			if len(b.Ledger()) != 0 {
				t.Errorf("ledger = %+v, want nothing", b.Ledger())
			}
		})
	}
}

func TestErrorsStopAfterTimes(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	var got []int
	for _, text := range []string{"a", "a", "b", "a"} {
		resp, _ := b.post(t, say(text+" [[sim:error=529;times=2]]", ""))
		got = append(got, resp.StatusCode)
	}
	if diff := cmp.Diff([]int{529, 529, 529, 200}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestOnlyTheLastUserMessageIsAScript(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	resp, body := b.post(t, `{"model":"claude-opus-5","max_tokens":9,"system":"[[sim:error=500]]","messages":[
		{"role":"user","content":"[[sim:error=500]]"},{"role":"assistant","content":"[[sim:error=500]]"},{"role":"user","content":"hi"}]}`)
	if resp.StatusCode != 200 {
		t.Errorf("status = %d, want 200: %s", resp.StatusCode, body)
	}
}

func TestOutputHasTheTokensThatWereAskedFor(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for _, extra := range []string{"", bashTool, searchTool, `,"thinking":{"type":"adaptive"}`} {
		for _, n := range []int64{1, 3, 10, 40, 500, 999, 1000} {
			_, body := b.post(t, say(fmt.Sprintf("[[sim:output_tokens=%d]]", n), extra))
			got := decode[reply](t, body)
			if got.Usage.OutputTokens != n || got.StopReason == "max_tokens" {
				t.Errorf("%s output = %d, %s, want %d", extra, got.Usage.OutputTokens, got.StopReason, n)
			}
			_, stream := b.post(t, say(fmt.Sprintf("[[sim:output_tokens=%d]]", n), extra+streaming))
			if got := lastUsage(t, stream).OutputTokens; got != n {
				t.Errorf("%s streamed output = %d, want %d", extra, got, n)
			}
		}
	}
	_, body := b.post(t, say("[[sim:output_tokens=1001]]", ""))
	if got := decode[reply](t, body); got.Usage.OutputTokens != 1000 || got.StopReason != "max_tokens" {
		t.Errorf("output = %d, %s, want 1000, max_tokens", got.Usage.OutputTokens, got.StopReason)
	}
}

func TestToolsAreUsedOnce(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	_, body := b.post(t, say("hi", bashTool))
	got := decode[reply](t, body)
	if got.StopReason != "tool_use" || len(got.Content) != 1 || got.Content[0].Name != "bash" ||
		string(got.Content[0].Input) != `{"command":"sample","mode":"fast","timeout":1}` {
		t.Errorf("answer = %s, want a call of bash with its required properties", body)
	}
	_, body = b.post(t, `{"model":"claude-opus-5-5","max_tokens":100`+bashTool+`,"messages":[
		{"role":"user","content":"hi"},
		{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"bash","input":{}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"[[sim:error=500]]"}]}]}`)
	if got := decode[reply](t, body); got.StopReason != "end_turn" || got.Content[0].Type != "text" {
		t.Errorf("answer = %s, want text", body)
	}
	for _, no := range []string{bashTool + `,"tool_choice":{"type":"none"}`, ``} {
		_, body = b.post(t, say("[[sim:say=no tool]]", no))
		if got := decode[reply](t, body); got.StopReason != "end_turn" || got.Content[0].Text != "no tool" {
			t.Errorf("answer = %s, want the text", body)
		}
	}
}

func TestEscapedInputIsUnderstood(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	_, body := b.post(t, say(`"[[sim:tool=bash;input={\"command\":\"ls\"}]]"`, bashTool))
	if got := decode[reply](t, body); string(got.Content[0].Input) != `{"command":"ls"}` {
		t.Errorf("answer = %s, want the input of the script", body)
	}
}

// TestPromptCache walks through the turns of a conversation whose mark moves.
func TestPromptCache(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	b := start(t, anthropic.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	text := func(n int, mark string) string {
		return fmt.Sprintf(`{"type":"text","text":%q%s}`, strings.Repeat("word", n), mark)
	}
	const mark, hour = `,"cache_control":{"type":"ephemeral"}`, `,"cache_control":{"type":"ephemeral","ttl":"1h"}`
	turn := func(system string, messages ...string) anthropic.Usage {
		t.Helper()
		list := make([]string, len(messages))
		for i, m := range messages {
			list[i] = `{"role":"user","content":[` + m + `]}`
		}
		_, body := b.post(t, `{"model":"claude-opus-5-5","max_tokens":9,"system":[`+system+`],"messages":[`+strings.Join(list, ",")+`]}`)
		return decode[reply](t, body).Usage
	}
	check := func(step string, u anthropic.Usage, input, write5m, write1h, read int64) {
		t.Helper()
		got := []int64{u.InputTokens, u.CacheCreation.Ephemeral5mInputTokens, u.CacheCreation.Ephemeral1hInputTokens, u.CacheReadInputTokens}
		if diff := cmp.Diff([]int64{input, write5m, write1h, read}, got); diff != "" {
			t.Errorf("%s: input, 5m, 1h, read (-want +got):\n%s", step, diff)
		}
		if u.CacheCreationInputTokens != write5m+write1h {
			t.Errorf("%s: cache_creation_input_tokens = %d, want %d", step, u.CacheCreationInputTokens, write5m+write1h)
		}
	}
	check("first turn", turn(text(100, hour), text(10, mark), text(5, "")), 5, 10, 100, 0)
	check("the same again", turn(text(100, hour), text(10, mark), text(5, "")), 5, 0, 0, 110)
	check("the mark has moved on", turn(text(100, hour), text(10, ""), text(5, mark), text(1, "")), 1, 5, 0, 110)
	check("another beginning", turn(text(101, hour), text(10, mark)), 0, 10, 101, 0)
	check("no marks", turn(text(100, ""), text(10, "")), 110, 0, 0, 0)
	mu.Lock()
	now = now.Add(5 * time.Minute)
	mu.Unlock()
	check("five minutes later", turn(text(100, hour), text(10, mark)), 0, 10, 0, 100)
}

func TestCountTokensAgreesWithMessages(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	body := say("count me", bashTool+`,"system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral"}}]`)
	_, answer := b.post(t, body)
	u := decode[reply](t, answer).Usage
	_, counted, _ := b.do(t, b.request(t, "POST", "/v1/messages/count_tokens", body, nil))
	got := decode[map[string]int64](t, counted)["input_tokens"]
	if want := u.InputTokens + u.CacheCreationInputTokens + u.CacheReadInputTokens; got != want || got == 0 {
		t.Errorf("count_tokens = %d, want %d", got, want)
	}
}

func TestUsageSaysWhatWasServed(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	opus := func(body string) string { return strings.Replace(body, "claude-haiku-4-5", "claude-opus-5-5", 1) }
	_, body := b.post(t, opus(say("[[sim:input_tokens=150000;web_searches=3]]", searchTool+`,"inference_geo":"us","speed":"fast"`)))
	u := decode[reply](t, body).Usage
	if u.InferenceGeo != "us" || u.Speed != "fast" || u.InputTokens != 151_500 || u.ServerToolUse.WebSearchRequests != 3 {
		usage, _ := json.Marshal(u)
		t.Errorf("usage = %s, want us, fast, 151500 input tokens, 3 searches", usage)
	}
	_, body = b.post(t, say("hi", ""))
	if u := decode[reply](t, body).Usage; u.InferenceGeo != "not_available" || u.ServiceTier != "standard" || u.ServerToolUse != nil {
		t.Errorf("usage = %+v, want not_available, standard, no server tools", u)
	}
}
