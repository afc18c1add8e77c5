package openai_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

func TestOutputHasTheTokensThatWereAskedFor(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for _, path := range []string{chatPath, responsesPath} {
		end := map[string]string{chatPath: reporting, responsesPath: streaming}[path]
		for _, model := range []string{"gpt-5", "gpt-4.1-mini"} {
			for _, extra := range []string{"", toolOf(path)} {
				for _, n := range []int64{1, 3, 10, 40, 500, 999} {
					text := fmt.Sprintf("[[sim:output_tokens=%d]]", n)
					_, whole := b.post(t, path, ask(path, model, text, extra))
					_, stream := b.post(t, path, ask(path, model, text, extra+end))
					got := []int64{usageOf(t, path, false, whole).OutputTokens, usageOf(t, path, true, stream).OutputTokens}
					if diff := cmp.Diff([]int64{n, n}, got); diff != "" {
						t.Errorf("%s %s %s: whole and streamed output (-want +got):\n%s", path, model, extra, diff)
					}
				}
			}
		}
	}
}

func TestReasoningIsPartOfTheOutput(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for _, tt := range []struct {
		name, model, script, extra string
		output, reasoning          int64
	}{
		{"a reasoning model", "gpt-5.4", "", "", 37, 16},
		{"another model", "gpt-4.1-mini", "", "", 21, 0},
		{"no effort", "gpt-5.4", "", `,"reasoning_effort":"none","reasoning":{"effort":"none"}`, 21, 0},
		{"a script of both", "gpt-4.1-mini", "[[sim:output_tokens=100;reasoning_tokens=90]]", "", 100, 90},
		{"a limit within the reasoning", "gpt-5", "[[sim:reasoning_tokens=50]]", `,"max_completion_tokens":20,"max_output_tokens":20`, 20, 20},
	} {
		for _, path := range []string{chatPath, responsesPath} {
			_, body := b.post(t, path, ask(path, tt.model, "hi "+tt.script, tt.extra))
			if u := usageOf(t, path, false, body); u.OutputTokens != tt.output || u.ReasoningTokens != tt.reasoning {
				t.Errorf("%s: %s: %+v, want %d output tokens, %d of reasoning", tt.name, path, u, tt.output, tt.reasoning)
			}
		}
	}
}

func TestLimitsCutTheAnswer(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for extra, want := range map[string]int64{`,"max_tokens":5`: 5, `,"max_completion_tokens":6`: 6, `,"max_tokens":5,"max_completion_tokens":7`: 7} {
		_, body := b.post(t, chatPath, ask(chatPath, "gpt-4.1-mini", "hi", extra))
		got := decode[chatReply](t, body)
		if got.Usage.Completion != want || value(got.Choices[0].FinishReason) != "length" || got.Usage.Total != got.Usage.Prompt+want {
			t.Errorf("%s: %s, want %d tokens and length", extra, body, want)
		}
	}
	_, body := b.post(t, responsesPath, ask(responsesPath, "gpt-4.1-mini", "hi", `,"max_output_tokens":16`))
	got := decode[response](t, body)
	if got.Status != "incomplete" || got.Incomplete.Reason != "max_output_tokens" || got.Usage.Output != 16 || got.Output[0].Status != "incomplete" {
		t.Errorf("response = %s, want an incomplete one of 16 tokens", body)
	}
}

func TestChoicesAreCountedTogether(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	_, body := b.post(t, chatPath, ask(chatPath, "gpt-5", "hi", `,"n":3`))
	got := decode[chatReply](t, body)
	if len(got.Choices) != 3 || got.Usage.Completion != 3*37 || got.Usage.Output.Reasoning != 3*16 || got.Choices[2].Index != 2 {
		t.Errorf("completion = %s, want three choices", body)
	}
	_, stream := b.post(t, chatPath, ask(chatPath, "gpt-5", "hi", reporting+`,"n":3`))
	texts, reasons := map[int]string{}, map[int]string{}
	for _, ev := range events(t, stream) {
		if ev.data == "[DONE]" {
			break
		}
		for _, c := range decode[chatReply](t, []byte(ev.data)).Choices {
			texts[c.Index] += value(c.Delta.Content)
			reasons[c.Index] += value(c.FinishReason)
		}
	}
	for i, c := range got.Choices {
		if texts[i] != value(c.Message.Content) || reasons[i] != "stop" {
			t.Errorf("streamed choice %d = %q, %q, want %q", i, texts[i], reasons[i], value(c.Message.Content))
		}
	}
}

func TestToolsAreUsedOnce(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	const want = `{"command":"sample","mode":"fast","timeout":1}`
	_, body := b.post(t, chatPath, ask(chatPath, "gpt-5", "hi", chatTool))
	chat := decode[chatReply](t, body).Choices[0]
	if value(chat.FinishReason) != "tool_calls" || chat.Message.Content != nil || chat.Message.ToolCalls[0].Function.Arguments != want {
		t.Errorf("answer = %s, want a call of bash with its required properties", body)
	}
	_, body = b.post(t, chatPath, `{"model":"gpt-5"`+chatTool+`,"messages":[{"role":"user","content":"[[sim:error=500]]"},
		{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"bash","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"call_1","content":"[[sim:error=500]]"}]}`)
	if got := decode[chatReply](t, body); value(got.Choices[0].FinishReason) != "stop" {
		t.Errorf("answer to a result = %s, want text", body)
	}
	_, body = b.post(t, responsesPath, ask(responsesPath, "gpt-4.1-mini", "hi", responseTool))
	call := decode[response](t, body).Output[0]
	if call.Type != "function_call" || call.Name != "bash" || call.Arguments != want || call.CallID == "" {
		t.Errorf("answer = %s, want a call of bash with its required properties", body)
	}
	_, body = b.post(t, responsesPath, `{"model":"gpt-4.1-mini"`+responseTool+`,"input":[{"role":"user","content":"[[sim:error=500]]"},
		{"type":"function_call","call_id":"call_1","name":"bash","arguments":"{}"},
		{"type":"function_call_output","call_id":"call_1","output":"done"}]}`)
	if got := decode[response](t, body); len(got.Output) != 1 || got.Output[0].Type != "message" {
		t.Errorf("answer to a result = %s, want text", body)
	}
}

func TestToolsAreChosen(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	const two = `,"tools":[{"type":"function","function":{"name":"bash"}},{"type":"custom","custom":{"name":"patch"}},{"type":"function","function":{"name":"edit"}}]`
	for _, tt := range []struct{ name, text, extra, want string }{
		{"the first", "hi", "", "bash {}"},
		{"by tool_choice", "hi", `,"tool_choice":{"type":"function","function":{"name":"edit"}}`, "edit {}"},
		{"by the script", `[[sim:tool=edit;input={"a":1}]]`, `,"tool_choice":"required"`, `edit {"a":1}`},
		{"with escaped arguments", `"[[sim:input={\"a\":\"b\"}]]"`, "", `bash {"a":"b"}`},
		{"none by tool_choice", "hi", `,"tool_choice":"none"`, ""},
		{"none by the script", "[[sim:tool=none]]", "", ""},
		{"none of that name", "[[sim:tool=other]]", "", ""},
		{"not a custom one", "[[sim:tool=patch]]", "", ""},
	} {
		_, body := b.post(t, chatPath, ask(chatPath, "gpt-5", tt.text, two+tt.extra))
		got := ""
		for _, call := range decode[chatReply](t, body).Choices[0].Message.ToolCalls {
			got += call.Function.Name + " " + call.Function.Arguments
		}
		if got != tt.want {
			t.Errorf("%s: call = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestPromptCache walks through the turns of a conversation.
func TestPromptCache(t *testing.T) {
	t.Parallel()
	b := serve(t, openai.Options{})
	turn := func(key, model string, messages ...string) []int64 {
		t.Helper()
		for i, m := range messages {
			messages[i] = `{"role":"user","content":"` + m + `"}`
		}
		body := `{"model":"` + model + `","messages":[` + strings.Join(messages, ",") + `]}`
		_, answer, _ := b.do(t, b.request(t, "POST", chatPath, body, map[string]string{"authorization": "Bearer " + key}))
		u := decode[chatReply](t, answer).Usage
		return []int64{u.Prompt, u.Details.Cached, u.Details.Written}
	}
	long := strings.Repeat("word", 100) // 102 tokens with its role
	for _, tt := range []struct {
		name string
		got  []int64
		want []int64
	}{
		{"first turn", turn("a", "gpt-6-sol", long), []int64{102, 0, 96}},
		{"the same again", turn("a", "gpt-6-sol", long), []int64{102, 96, 0}},
		{"a longer conversation", turn("a", "gpt-6-sol", long, long), []int64{203, 96, 96}},
		{"another beginning", turn("a", "gpt-6-sol", "x"+long), []int64{102, 0, 96}},
		{"another key", turn("b", "gpt-6-sol", long), []int64{102, 0, 96}},
		{"a model that reports no writes", turn("a", "gpt-5", long), []int64{102, 0, 0}},
		{"the same again", turn("a", "gpt-5", long), []int64{102, 96, 0}},
		{"less than a block", turn("a", "gpt-6-sol", "hi"), []int64{2, 0, 0}},
		{"less than a block again", turn("a", "gpt-6-sol", "hi"), []int64{2, 0, 0}},
		{"a script", turn("a", "gpt-6-sol", "[[sim:input_tokens=1000;cached_tokens=900]]"+long), []int64{1000, 900, 96}},
		{"more cached than there is", turn("a", "gpt-5", "[[sim:input_tokens=5;cached_tokens=900]]"), []int64{5, 5, 0}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s: prompt, cached, written (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestImagesCountTheSame(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	ask := func(image string) int64 {
		_, body := b.post(t, chatPath, `{"model":"gpt-5","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"`+image+`"}}]}]}`)
		return decode[chatReply](t, body).Usage.Prompt
	}
	if small, large := ask("data:a"), ask("data:"+strings.Repeat("b", 10_000)); small != large || small < 765 {
		t.Errorf("images count %d and %d, want the same", small, large)
	}
}

func TestTheServiceTierIsEchoed(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for _, path := range []string{chatPath, responsesPath} {
		for asked, want := range map[string]string{"": "default", "auto": "default", "default": "default", "flex": "flex", "priority": "priority"} {
			extra := ""
			if asked != "" {
				extra = `,"service_tier":"` + asked + `"`
			}
			_, body := b.post(t, path, ask(path, "gpt-5", "hi", extra))
			if u := usageOf(t, path, false, body); u.ServiceTier != want {
				t.Errorf("%s: tier %q is served as %q, want %q", path, asked, u.ServiceTier, want)
			}
		}
	}
}
