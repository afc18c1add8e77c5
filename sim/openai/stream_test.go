package openai_test

import (
	"bytes"
	"context"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/openai"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ids are what differs from run to run.
var ids = regexp.MustCompile(`(resp_|msg_|rs_|fc_|call_|chatcmpl-)[0-9a-f]{24,48}`)

func TestStreamsLookLikeTheRealOnes(t *testing.T) {
	t.Parallel()
	const script = `[[sim:say=žluťoučký <kůň>]] [[sim:tool=bash;input={"command":"ls -la"}]]`
	for name, tt := range map[string]struct{ path, model, text, extra string }{
		"chat_text":          {chatPath, "gpt-4.1-mini", "hi", streaming},
		"chat_usage":         {chatPath, "gpt-5", "hi", reporting},
		"chat_tool":          {chatPath, "gpt-5", "hi", reporting + chatTool},
		"chat_script":        {chatPath, "gpt-5", script, streaming + chatTool},
		"chat_choices":       {chatPath, "gpt-4.1-mini", "[[sim:output_tokens=9]]", reporting + `,"n":2`},
		"chat_length":        {chatPath, "gpt-4.1-mini", "hi", streaming + `,"max_tokens":5`},
		"chat_error":         {chatPath, "gpt-5", "[[sim:stream_error=after:2]]", streaming},
		"chat_plain":         {chatPath, "gpt-5", "hi", `,"stream":true,"stream_options":{"include_obfuscation":false}`},
		"responses_text":     {responsesPath, "gpt-4.1-mini", "hi", streaming},
		"responses_reason":   {responsesPath, "gpt-5", "hi", streaming + `,"include":["reasoning.encrypted_content"],"store":false`},
		"responses_tool":     {responsesPath, "gpt-4.1-mini", "hi", streaming + responseTool},
		"responses_script":   {responsesPath, "gpt-4.1-mini", script, streaming + responseTool},
		"responses_length":   {responsesPath, "gpt-5", "hi", streaming + `,"max_output_tokens":20`},
		"responses_error":    {responsesPath, "gpt-4.1-mini", "[[sim:stream_error=after:2;code=rate_limit_exceeded]]", streaming},
		"responses_fail":     {responsesPath, "gpt-5", "[[sim:fail=after:2]]", streaming},
		"responses_no_noise": {responsesPath, "gpt-4.1-mini", "hi", streaming + `,"stream_options":{"include_obfuscation":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, openai.Options{})
			resp, got := b.post(t, tt.path, ask(tt.path, tt.model, tt.text, tt.extra))
			if kind := resp.Header.Get("content-type"); kind != "text/event-stream; charset=utf-8" {
				t.Errorf("content-type = %q", kind)
			}
			got = ids.ReplaceAll(got, []byte("${1}ID"))
			path := filepath.Join("testdata", name+".sse")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("stream (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChatReportsUsageOnlyIfAsked(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	_, without := b.post(t, chatPath, ask(chatPath, "gpt-5", "hi", streaming))
	if bytes.Contains(without, []byte("usage")) || !bytes.HasSuffix(without, []byte("data: [DONE]\n\n")) {
		t.Errorf("stream = %s, want no usage and [DONE]", without)
	}
	_, with := b.post(t, chatPath, ask(chatPath, "gpt-5", "hi", reporting))
	list := events(t, with)
	for i, ev := range list[:len(list)-2] {
		if !strings.Contains(ev.data, `"usage":null`) {
			t.Errorf("chunk %d = %s, want usage null", i, ev.data)
		}
	}
	last := decode[chatReply](t, []byte(list[len(list)-2].data))
	if len(last.Choices) != 0 || last.Choices == nil || last.Usage == nil || list[len(list)-1].data != "[DONE]" {
		t.Errorf("end = %v, want usage without choices, then [DONE]", list[len(list)-2:])
	}
	var reported []bool
	for _, e := range b.Ledger() {
		reported = append(reported, e.Reported && e.Finished)
		if e.Usage.OutputTokens != 37 {
			t.Errorf("ledger = %+v, want 37 output tokens", e)
		}
	}
	if diff := cmp.Diff([]bool{false, true}, reported); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
}

// TestResponseEventsAreNumbered walks the events of every kind of response.
func TestResponseEventsAreNumbered(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{})
	for script, end := range map[string]string{
		"output_tokens=40": "response.completed", "output_tokens=400": "response.incomplete",
		"stream_error=after:2": "error", "fail=after:2": "response.failed",
		"stream_error=after:9999": "error", "fail=after:0": "response.failed",
	} {
		_, body := b.post(t, responsesPath, ask(responsesPath, "gpt-5", "[[sim:"+script+"]]", streaming+`,"max_output_tokens":100`))
		list := events(t, body)
		for i, ev := range list {
			got := decode[struct {
				Type           string
				SequenceNumber int `json:"sequence_number"`
			}](t, []byte(ev.data))
			if got.Type != ev.name || got.SequenceNumber != i {
				t.Errorf("%s: event %d = %s %+v", script, i, ev.name, got)
			}
		}
		if list[0].name != "response.created" || list[len(list)-1].name != end {
			t.Errorf("%s: from %s to %s, want response.created to %s", script, list[0].name, list[len(list)-1].name, end)
		}
	}
}

// TestLedgerAgreesWithWhatWasReported compares the oracle with the numbers that
// clients saw, streaming and not.
func TestLedgerAgreesWithWhatWasReported(t *testing.T) {
	t.Parallel()
	for _, path := range []string{chatPath, responsesPath} {
		b := start(t, openai.Options{})
		end := map[string]string{chatPath: reporting, responsesPath: streaming}[path]
		var seen []openai.Usage
		for i, extra := range []string{"", toolOf(path), `,"service_tier":"flex"`, `,"reasoning":{"effort":"none"},"reasoning_effort":"none"`} {
			model := []string{"gpt-5", "o4-mini", "gpt-6-sol", "gpt-5.4"}[i]
			text := strings.Repeat("word", 50+i)
			_, whole := b.post(t, path, ask(path, model, text, extra))
			_, stream := b.post(t, path, ask(path, model, text, extra+end))
			seen = append(seen, usageOf(t, path, false, whole), usageOf(t, path, true, stream))
		}
		var booked []openai.Usage
		for _, e := range b.Ledger() {
			booked = append(booked, e.Usage)
			if !e.Finished || !e.Reported || e.Error != "" {
				t.Errorf("entry %+v, want finished and reported", e)
			}
		}
		if diff := cmp.Diff(seen, booked); diff != "" {
			t.Errorf("%s: usage (-reported +ledger):\n%s", path, diff)
		}
		for i := 0; i < len(seen); i += 2 {
			if seen[i].OutputTokens != seen[i+1].OutputTokens || seen[i].InputTokens != seen[i+1].InputTokens || seen[i+1].CachedTokens < 32 {
				t.Errorf("%s: whole %+v, then stream %+v, want the same, more of it cached", path, seen[i], seen[i+1])
			}
		}
	}
}

func TestAnAbortIsNoticedAndBooked(t *testing.T) {
	t.Parallel()
	for script, reason := range map[string]string{"delay_ms=3600000": "client_aborted", "stall=after:0": "stalled"} {
		for _, path := range []string{chatPath, responsesPath} {
			b := start(t, openai.Options{Script: script})
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := b.http.Client().Do(b.request(t, "POST", path, ask(path, "gpt-5", "hi", streaming), nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			// The beginning arrives although the rest does not: it was flushed. A client
			// that left before its last event would not leave a stalled stream.
			last := map[string]string{chatPath: "assistant", responsesPath: "response.content_part.added"}[path]
			var seen []byte
			for buf := make([]byte, 4096); !bytes.Contains(seen, []byte(last)); {
				n, err := resp.Body.Read(buf)
				seen = append(seen, buf[:n]...)
				if err != nil {
					t.Fatalf("read: %v after %q", err, seen)
				}
			}
			cancel()
			_ = resp.Body.Close()
			b.http.Close() // waits for the handler
			e := b.Ledger()[0]
			if e.Finished || e.Reported || e.Error != reason || e.Usage.OutputTokens != 16 || e.Usage.InputTokens == 0 {
				t.Errorf("%s: ledger = %+v, want %s with the tokens of the reasoning", path, e, reason)
			}
		}
	}
}

func TestAStalledWholeAnswerIsNone(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{Script: "stall=after:3"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	resp, err := b.http.Client().Do(b.request(t, http.MethodPost, chatPath, ask(chatPath, "gpt-5", "hi", ""), nil).WithContext(ctx))
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("status = %d, want no answer", resp.StatusCode)
	}
	b.http.Close()
	if len(b.Ledger()) != 0 {
		t.Errorf("ledger = %+v, want nothing", b.Ledger())
	}
}

func TestDelaysAreKept(t *testing.T) {
	t.Parallel()
	b := start(t, openai.Options{ChunkDelay: time.Hour})
	begun := time.Now()
	b.post(t, chatPath, ask(chatPath, "gpt-4.1-mini", "[[sim:delay_ms=2;first_byte_ms=20]]", streaming))
	if least := 32 * time.Millisecond; time.Since(begun) < least {
		t.Errorf("six deltas took %v, want at least %v", time.Since(begun), least)
	}
}
