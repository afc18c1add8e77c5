package proxy

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	sim "github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// message makes a request of one message with the given content.
func messageOf(content string, more string) string {
	return `{"model":"claude-opus-5-5","max_tokens":100` + more + `,"messages":[{"role":"user","content":` + content + `}]}`
}

func quoted(text string) string { return string(encode(text)) }

// TestTheEstimateIsNeverTooLow holds the estimate of prompts of many kinds
// against the simulator's count, and logs how much higher it is.
func TestTheEstimateIsNeverTooLow(t *testing.T) {
	t.Parallel()
	truth := sim.New(sim.Options{})
	image := `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + strings.Repeat("QUJD", 30_000) + `"}}`
	for name, body := range map[string]string{
		"a short question": messageOf(quoted("Hello there."), ""),
		"prose":            messageOf(quoted(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 2000)), ""),
		"code":             messageOf(quoted(strings.Repeat("\tif err := f(x[i], &y); err != nil {\n\t\treturn nil, err\n\t}\n", 2000)), ""),
		"another alphabet": messageOf(quoted(strings.Repeat("Příliš žluťoučký kůň 漢字かな交じり文 ", 2000)), ""),
		"digits":           messageOf(quoted(strings.Repeat("3.14159265358979 ", 4000)), ""),
		"an image":         messageOf(`[`+image+`,{"type":"text","text":"What is it?"}]`, ""),
		"ten images":       messageOf(`[`+strings.Repeat(image+",", 9)+image+`]`, ""),
		"tools":            messageOf(quoted("Hi"), `,"tool_choice":{"type":"none"},"tools":[`+strings.TrimSuffix(strings.Repeat(`{"name":"tool","description":"does a thing","input_schema":{"type":"object","properties":{"a":{"type":"string"}}}},`, 50), ",")+`]`),
	} {
		request := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/messages/count_tokens", strings.NewReader(strings.Replace(body, `"max_tokens":100,`, "", 1)))
		request.Header.Set("Anthropic-Version", "2023-06-01")
		request.Header.Set("X-Api-Key", "any")
		answer := httptest.NewRecorder()
		truth.ServeHTTP(answer, request)
		var count struct {
			InputTokens int64 `json:"input_tokens"`
		}
		if err := json.Unmarshal(answer.Body.Bytes(), &count); err != nil || count.InputTokens == 0 {
			t.Fatalf("%s: %s", name, answer.Body)
		}
		req, bad := Scan(Messages, []byte(body))
		if bad != nil {
			t.Fatal(bad)
		}
		got := bound(req).PromptTokens
		t.Logf("%-30s %8d bytes, %7d tokens, estimated %7d: × %.2f", name, len(body), count.InputTokens, got, float64(got)/float64(count.InputTokens))
		if got < count.InputTokens {
			t.Errorf("%s: estimated %d of %d tokens", name, got, count.InputTokens)
		}
	}
}

// TestOnlyRealBlocksAreImages puts what looks like an image where the provider
// reads text: it counts as text.
func TestOnlyRealBlocksAreImages(t *testing.T) {
	t.Parallel()
	data := strings.Repeat("QUJD", 100_000)
	image := `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + data + `"}}`
	for name, tt := range map[string]struct {
		body        string
		least, most int64
	}{
		"an image":                     {messageOf(`[`+image+`]`, ""), 5000, 8000},
		"in a tool's input":            {messageOf(`[{"type":"tool_use","id":"t","name":"n","input":{"content":[`+image+`]}}]`, ""), 200_000, 210_000},
		"in a field that nobody knows": {messageOf(quoted("x"), `,"x":[`+image+`]`), 200_000, 210_000},
		"a content that is replaced":   {messageOf(`[{"type":"tool_result","content":[`+image+`],"content":"x"}]`, ""), 200_000, 210_000},
		"very deep":                    {messageOf(strings.Repeat(`[{"type":"tool_result","content":`, 20)+`[`+image+`]`+strings.Repeat(`}]`, 20), ""), 200_000, 210_000},
		"a document":                   {messageOf(`[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBERi`+data+`"}}]`, ""), 400_000, 410_000},
		"a document somewhere else":    {messageOf(`[{"type":"document","source":{"type":"url","url":"https://example.com/a.pdf"}}]`, ""), longestPrompt, longestPrompt},
		"web search":                   {messageOf(quoted("x"), `,"tools":[{"type":"web_search_20250305","name":"web_search"}]`), 200_000, 210_000},
		"numbers where types belong":   {messageOf(`[{"type":5,"content":7},6,null,"x"]`, ""), 1000, 1100},
	} {
		req, bad := Scan(Messages, []byte(tt.body))
		if bad != nil {
			t.Fatal(name, bad)
		}
		if got := bound(req).PromptTokens; got < tt.least || got > tt.most {
			t.Errorf("%s: estimated %d, want %d to %d", name, got, tt.least, tt.most)
		}
	}
}

// FuzzMarks compares what is found with what the strings are that a decoder finds.
func FuzzMarks(f *testing.F) {
	for _, text := range []string{
		`"cache_control"`, `{"cache_control":{"ttl":"1h"}}`, `["x_cache_control","cache_controls","1hour","11h"]`, `[[{"type":"web_search_20250305"}]]`, `"web_search"`, `"web_search_"`,
		`"` + strings.Repeat("x", 100) + `cache_control"`, `["1h"]`, `{"a":"web_search_` + strings.Repeat("x", 100) + `"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) || bytes.IndexByte(text, '\\') >= 0 {
			return
		}
		var want marks
		tokens := json.NewDecoder(bytes.NewReader(text))
		for token, err := tokens.Token(); err == nil; token, err = tokens.Token() {
			if text, ok := token.(string); ok {
				want = marks{want.caches || text == "cache_control", want.searches || strings.HasPrefix(text, "web_search_"), want.hour || text == "1h"}
			}
		}
		if w := (walk{b: text, checked: checked}); w.value(w.space(0), 0) == 0 || w.marks != want {
			t.Errorf("%q has %+v, want %+v", text, w.marks, want)
		}
	})
}

// FuzzEstimate estimates any JSON object: no panic, and never less than nothing.
func FuzzEstimate(f *testing.F) {
	f.Add([]byte(messageOf(`[{"type":"image"},{"type":"document","source":{}},{"type":"tool_result","content":[{"type":"image"}]}]`, "")))
	f.Add([]byte(`{"messages":[{"content":[]}],"input":[5],"system":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := Scan(Messages, body); err == nil && r.weight.promptTokens() < 0 {
			t.Errorf("%d tokens", r.weight.promptTokens())
		}
	})
}
