package openai_test

import (
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

func TestErrorsAreScripted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script     string
		status     int
		kind, code string
		header     map[string]string
	}{
		{"error=400", 400, "invalid_request_error", "", map[string]string{"x-should-retry": ""}},
		{"error=401", 401, "invalid_request_error", "invalid_api_key", nil},
		{"error=404", 404, "invalid_request_error", "model_not_found", nil},
		{"error=429;retry_after=7", 429, "requests", "rate_limit_exceeded", map[string]string{"retry-after": "7", "retry-after-ms": "7000"}},
		{"error=429;code=insufficient_quota;type=insufficient_quota", 429, "insufficient_quota", "insufficient_quota", nil},
		{"error=500;should_retry=false", 500, "server_error", "server_error", map[string]string{"x-should-retry": "false"}},
		{"error=502;body=html", 502, "", "", map[string]string{"content-type": "text/html"}},
		{"error=503;body=empty", 503, "", "", map[string]string{"content-type": "", "content-length": "0"}},
	} {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{chatPath, responsesPath} {
				b := start(t, openai.Options{})
				resp, body := b.post(t, path, ask(path, "gpt-5", "please [[sim:"+tt.script+"]]", streaming))
				if resp.StatusCode != tt.status {
					t.Errorf("status = %d, want %d", resp.StatusCode, tt.status)
				}
				for name, want := range tt.header {
					if got := resp.Header.Get(name); got != want {
						t.Errorf("%s = %q, want %q", name, got, want)
					}
				}
				if tt.kind != "" {
					got := decode[apiError](t, body).Error
					if got.Type != tt.kind || value(got.Code) != tt.code {
						t.Errorf("body = %s, want %s, %q", body, tt.kind, tt.code)
					}
				}
				if len(b.Ledger()) != 0 {
					t.Errorf("ledger = %+v, want nothing", b.Ledger())
				}
			}
		})
	}
}

func TestErrorsStopAfterTimes(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	var got []int
	for _, ask := range []string{
		ask(chatPath, "gpt-5", "[[sim:error=503;times=2]]", ""), ask(chatPath, "gpt-5", "[[sim:error=503;times=2]]", ""),
		ask(chatPath, "o4-mini", "[[sim:error=503;times=2]]", ""), ask(chatPath, "gpt-5", "[[sim:error=503;times=2]]", ""),
	} {
		resp, _ := b.post(t, chatPath, ask)
		got = append(got, resp.StatusCode)
	}
	if diff := cmp.Diff([]int{503, 503, 503, 200}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestScriptsComeFromThreePlaces(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{Script: "error=500"})
	for _, tt := range []struct {
		name, header, text string
		want               int
	}{
		{"the options alone", "", "hi", 500},
		{"the header before the options", "error=501", "hi", 501},
		{"the message before all", "error=501", "[[sim:error=502]]", 502},
	} {
		for _, path := range []string{chatPath, responsesPath} {
			resp, body, _ := b.do(t, b.request(t, "POST", path, ask(path, "gpt-5", tt.text, ""), map[string]string{"x-sim-script": tt.header}))
			if resp.StatusCode != tt.want {
				t.Errorf("%s: %s = %d, want %d: %s", tt.name, path, resp.StatusCode, tt.want, body)
			}
		}
	}
}

func TestOnlyTheLastUserMessageIsAScript(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	const fatal = `"[[sim:error=500]]"`
	for path, body := range map[string]string{
		chatPath: `{"model":"gpt-5","messages":[{"role":"system","content":` + fatal + `},{"role":"user","content":` + fatal + `},
			{"role":"assistant","content":` + fatal + `},{"role":"user","content":[{"type":"text","text":"hi"}]}]}`,
		responsesPath: `{"model":"gpt-5","instructions":` + fatal + `,"input":[{"role":"user","content":` + fatal + `},
			{"role":"assistant","content":` + fatal + `},{"role":"user","content":[{"type":"input_text","text":"hi"}]}]}`,
	} {
		if resp, answer := b.post(t, path, body); resp.StatusCode != 200 {
			t.Errorf("%s = %d, want 200: %s", path, resp.StatusCode, answer)
		}
	}
}

func TestStreamsEndAsTheScriptSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script string
		cut    bool  // the connection, so that the client sees an error
		deltas int   // of six
		output int64 // in the ledger
		reason string
	}{
		{"cut=after:3", true, 3, 12, "cut"},
		{"cut=after:0", true, 0, 0, "cut"},
		{"cut=after:1000", true, 6, 21, "cut"},
		{"cut=after:2;encoding=gzip", true, 2, 8, "cut"},
		{"stream_error=after:2", false, 2, 8, "stream_error"},
		{"stream_error=after:1000", false, 6, 21, "stream_error"},
		{"fail=after:2", false, 2, 8, "failed"},
	} {
		t.Run(tt.script, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{chatPath, responsesPath} {
				b := start(t, openai.Options{})
				_, body, err := b.do(t, b.request(t, "POST", path, ask(path, "gpt-4.1-mini", "hi", streaming), map[string]string{"x-sim-script": tt.script}))
				if got := errors.Is(err, io.ErrUnexpectedEOF); got != tt.cut {
					t.Errorf("read: %v, want a cut connection: %v", err, tt.cut)
				}
				deltas := strings.Count(string(body), `"delta":{"content":`) + strings.Count(string(body), "event: response.output_text.delta")
				if deltas != tt.deltas {
					t.Errorf("%s: %d deltas, want %d: %s", path, deltas, tt.deltas, body)
				}
				if strings.Contains(string(body), "[DONE]") || strings.Contains(string(body), "response.completed") {
					t.Errorf("%s: the stream came to its end", path)
				}
				e := b.Ledger()[0]
				if e.Finished || e.Reported || e.Usage.OutputTokens != tt.output || e.Error != tt.reason {
					t.Errorf("%s: ledger = %+v, want %d output tokens, %s", path, e, tt.output, tt.reason)
				}
			}
		})
	}
}

func TestAnAnswerThatIsNotStreamedCanBeCut(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, responsesPath} {
		b := start(t, openai.Options{})
		_, body, err := b.do(t, b.request(t, "POST", path, ask(path, "gpt-5", "[[sim:cut=after:1]]", ""), nil))
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) == 0 {
			t.Errorf("read %d bytes, %v, want some and a cut connection", len(body), err)
		}
		if e := b.Ledger()[0]; e.Finished || e.Error != "cut" || e.Usage.OutputTokens != 37 {
			t.Errorf("ledger = %+v, want unfinished with all tokens", e)
		}
	}
}

func TestAnswersAreCompressedOnRequest(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for _, tt := range []struct{ script, extra string }{{"", ""}, {"", streaming}, {";error=500", ""}} {
		for _, path := range []string{chatPath, responsesPath} {
			text := "hi [[sim:encoding=gzip" + tt.script + "]]"
			// A client that says what it accepts is not helped by Go's transport.
			r := b.request(t, "POST", path, ask(path, "gpt-4.1-mini", text, tt.extra), map[string]string{"accept-encoding": "identity"})
			resp, packed, err := b.do(t, r)
			if err != nil || resp.Header.Get("content-encoding") != "gzip" {
				t.Fatalf("content-encoding = %q, %v, want gzip", resp.Header.Get("content-encoding"), err)
			}
			unpacked, err := gzip.NewReader(strings.NewReader(string(packed)))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(unpacked)
			if err != nil || !strings.Contains(string(body), "simulated") && !strings.Contains(string(body), "[DONE]") {
				t.Errorf("body = %s, %v, want an answer", body, err)
			}
		}
	}
}
