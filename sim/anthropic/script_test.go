package anthropic_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

func TestTheScriptNearestToTheRequestWins(t *testing.T) {
	t.Parallel()
	const sick = "error=500"
	tests := []struct {
		name                           string
		server, model, header, message string
		want                           int
	}{
		{"the server's is applied", sick, "", "", "", 500},
		{"the model's wins over the server's", sick, "error=501", "", "", 501},
		{"the header's wins over the model's", sick, "error=501", "error=502", "", 502},
		{"the message's wins over all", sick, "error=501", "error=502", "[[sim:error=503]]", 503},
		{"what is named once is taken from anywhere", "retry_after=7", "error=429", "", "", 429},
		{"a wrong one of the server is told", "eror=500", "", "", "", 400},
		{"a wrong one of the model is told", "", "eror=500", "", "", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, anthropic.Options{Script: tt.server, Models: map[string]string{"claude-haiku-4-5": tt.model}})
			r := b.request(t, "POST", "/v1/messages", say("hi "+tt.message, ""), map[string]string{"x-sim-script": tt.header})
			resp, body, _ := b.do(t, r)
			if resp.StatusCode != tt.want {
				t.Errorf("status = %d, want %d: %s", resp.StatusCode, tt.want, body)
			}
			if resp.StatusCode == 429 && resp.Header.Get("retry-after") != "7" {
				t.Errorf("retry-after = %q, want 7", resp.Header.Get("retry-after"))
			}
		})
	}
}

func TestAModelsScriptIsForTheNameThatWasAskedFor(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{Models: map[string]string{"claude-haiku-4-5": "error=529"}})
	for model, want := range map[string]int{"claude-haiku-4-5": 529, "claude-haiku-4-5-20251001": 200, "claude-opus-5-5": 200} {
		if resp, _ := b.post(t, strings.Replace(say("hi", ""), "claude-haiku-4-5", model, 1)); resp.StatusCode != want {
			t.Errorf("status of %s = %d, want %d", model, resp.StatusCode, want)
		}
	}
}

// TestASickServerIsSickEverywhere walks one server through sickness and health.
func TestASickServerIsSickEverywhere(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	statuses := func() []int {
		t.Helper()
		var got []int
		for _, route := range []string{"POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models", "GET /v1/models/claude-opus-5-5", "GET /"} {
			method, path, _ := strings.Cut(route, " ")
			resp, _, _ := b.do(t, b.request(t, method, path, say("hi", ""), nil))
			got = append(got, resp.StatusCode)
		}
		return got
	}
	healthy := []int{200, 200, 200, 200, 404}
	for _, step := range []struct {
		script string
		want   []int
	}{
		{"", healthy},
		{"error=529", []int{529, 529, 529, 529, 529}},
		{"", healthy},
		{"error=503;times=2", []int{503, 503, 200, 200, 404}},
		{"error=503;times=2", []int{503, 503, 200, 200, 404}},
	} {
		b.SetScript(step.script)
		if diff := cmp.Diff(step.want, statuses()); diff != "" {
			t.Errorf("after SetScript(%q) (-want +got):\n%s", step.script, diff)
		}
	}
}

func TestTimesCountsPerScript(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{Script: "error=500;times=3", Models: map[string]string{"claude-opus-5-5": "error=501;times=1"}})
	var got []int
	for _, ask := range []struct{ model, text string }{
		{"claude-opus-5-5", "the model's own"},
		{"claude-opus-5-5", "the server's, whatever the text"},
		{"claude-haiku-4-5", "the server's, whatever the model"},
		{"claude-haiku-4-5", "[[sim:error=502;times=1]] the message's"},
		{"claude-haiku-4-5", "[[sim:error=502;times=1]] the message's"},
	} {
		resp, _ := b.post(t, strings.Replace(say(ask.text, ""), "claude-haiku-4-5", ask.model, 1))
		got = append(got, resp.StatusCode)
	}
	if diff := cmp.Diff([]int{501, 500, 500, 502, 200}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestTimesIsForItsOwnScriptAlone(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{Script: "error=500;times=1"})
	for range 3 {
		if resp, _ := b.post(t, say("[[sim:error=503]]", "")); resp.StatusCode != 503 {
			t.Errorf("status = %d, want the message's 503 every time", resp.StatusCode)
		}
	}
}

func TestTimesEndsEveryFault(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	const usual = "a text that takes some deltas"
	for _, fault := range []string{
		"error=500", "close=before_headers", "stream_error=after:1", "cut=after:1", "malformed=after:1",
		"stall_pings=after:1;stall_pings_ms=1", "encoding=br", "huge=100",
	} {
		text := fmt.Sprintf("[[sim:times=1;%s]] [[sim:say=%s]]", fault, usual)
		var answers []string
		for range 2 {
			resp, err := b.http.Client().Do(b.request(t, "POST", "/v1/messages", say(text, streaming), nil))
			if err != nil {
				answers = append(answers, err.Error())
				continue
			}
			answers = append(answers, ids.ReplaceAllString(read(resp.Body), "ID"))
		}
		if answers[0] == answers[1] {
			t.Errorf("%s: the second answer is the first, %q", fault, answers[0])
		}
		clean := fmt.Sprintf("[[sim:say=%s]] %*s", usual, len(text)-len(usual)-13, "")
		_, want := b.post(t, say(clean, streaming))
		if diff := cmp.Diff(ids.ReplaceAllString(string(want), "ID"), answers[1]); diff != "" {
			t.Errorf("%s: the second answer (-usual +got):\n%s", fault, diff)
		}
	}
}

func TestScriptsCanChangeWhileRequestsRun(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { b.SetScript(fmt.Sprintf("error=500;times=%d", i+1)) })
		wg.Go(func() { b.post(t, say("hi", "")) })
	}
	wg.Wait()
	b.SetScript("")
	if resp, body := b.post(t, say("hi", "")); resp.StatusCode != 200 {
		t.Errorf("status = %d, want 200: %s", resp.StatusCode, body)
	}
}
