package anthropic_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ids are what differs from run to run.
var ids = regexp.MustCompile(`(msg|req|toolu|srvtoolu)_01[A-Z2-7]{22}`)

const (
	bashTool   = `,"tools":[{"name":"bash","input_schema":{"type":"object","properties":{"command":{"type":"string"},"timeout":{"type":"integer"},"mode":{"enum":["fast","slow"]}},"required":["command","mode","timeout"]}}]`
	searchTool = `,"tools":[{"type":"web_search_20250305","name":"web_search"}]`
	streaming  = `,"stream":true`
)

func TestStreamsLookLikeTheRealOnes(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for name, body := range map[string]string{
		"text":         say("hi", streaming),
		"thinking":     say("hi", streaming+`,"thinking":{"type":"adaptive"}`),
		"tool":         say("hi", streaming+bashTool),
		"search":       say("hi", streaming+searchTool),
		"max_tokens":   strings.Replace(say("hi", streaming), `"max_tokens":1000`, `"max_tokens":10`, 1),
		"stream_error": say("[[sim:stream_error=after:2]]", streaming),
		"script":       say(`[[sim:say=žluťoučký <kůň>]] [[sim:tool=bash;input={"command":"ls"}]]`, streaming+bashTool),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, got := b.post(t, body)
			if kind := resp.Header.Get("content-type"); kind != "text/event-stream; charset=utf-8" {
				t.Errorf("content-type = %q", kind)
			}
			got = ids.ReplaceAll(got, []byte("${1}_ID"))
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

// TestLedgerAgreesWithWhatWasReported compares the oracle with the numbers that
// clients saw, streaming and not.
func TestLedgerAgreesWithWhatWasReported(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	var seen []anthropic.Usage
	for _, extra := range []string{"", bashTool, searchTool, `,"thinking":{"type":"enabled","budget_tokens":1024}`} {
		_, whole := b.post(t, say("hi", extra))
		seen = append(seen, decode[reply](t, whole).Usage)
		_, stream := b.post(t, say("hi", extra+streaming))
		seen = append(seen, lastUsage(t, stream))
	}
	var booked []anthropic.Usage
	for _, e := range b.Ledger() {
		booked = append(booked, e.Usage)
		if !e.Finished || e.Error != "" {
			t.Errorf("entry %+v, want finished", e)
		}
	}
	if diff := cmp.Diff(seen, booked); diff != "" {
		t.Errorf("usage (-reported +ledger):\n%s", diff)
	}
	for i := 0; i < len(seen); i += 2 {
		if diff := cmp.Diff(seen[i], seen[i+1]); diff != "" {
			t.Errorf("usage (-whole +stream):\n%s", diff)
		}
	}
}

// lastUsage is message_start's usage overwritten by that of message_delta, as
// the SDKs do it.
func lastUsage(t *testing.T, stream []byte) anthropic.Usage {
	t.Helper()
	var body struct {
		Usage anthropic.Usage `json:"usage"`
	}
	for _, ev := range events(t, stream) {
		switch ev.name {
		case "message_start":
			body.Usage = decode[struct{ Message reply }](t, []byte(ev.data)).Message.Usage
		case "message_delta":
			u := decode[struct{ Usage anthropic.Usage }](t, []byte(ev.data)).Usage
			body.Usage.InputTokens, body.Usage.OutputTokens = u.InputTokens, u.OutputTokens
			body.Usage.ServerToolUse = u.ServerToolUse
		}
	}
	return body.Usage
}

func TestStreamsEndAsTheScriptSays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		cut          bool // the connection, so that the client sees an error
		deltas       int
		output       int64 // in the ledger
		reason       string
	}{
		{"cut after three deltas", "cut=after:3", true, 3, 12, "cut"},
		{"cut before the first delta", "cut=after:0", true, 0, 1, "cut"},
		{"cut at the end", "cut=after:1000", true, 6, 21, "cut"},
		{"error event in mid-stream", "stream_error=after:2", false, 2, 8, "stream_error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, anthropic.Options{})
			_, body, err := b.do(t, b.request(t, "POST", "/v1/messages", say("hi", streaming), map[string]string{"x-sim-script": tt.script}))
			if got := errors.Is(err, io.ErrUnexpectedEOF); got != tt.cut {
				t.Errorf("read: %v, want a cut connection: %v", err, tt.cut)
			}
			list := events(t, body)
			if n := count(list, "content_block_delta"); n != tt.deltas || count(list, "message_stop") != 0 {
				t.Errorf("%d deltas, %d message_stop, want %d and none", n, count(list, "message_stop"), tt.deltas)
			}
			if n := count(list, "error"); (n == 1) == tt.cut {
				t.Errorf("%d error events", n)
			}
			e := b.Ledger()[0]
			if e.Finished || e.Usage.OutputTokens != tt.output || e.Error != tt.reason {
				t.Errorf("ledger = %+v, want %d output tokens, %s", e, tt.output, tt.reason)
			}
		})
	}
}

func TestAnAbortIsNoticedAndBooked(t *testing.T) {
	t.Parallel()
	for script, reason := range map[string]string{"delay_ms=3600000": "client_aborted", "stall=after:0": "stalled"} {
		b := start(t, anthropic.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		r := b.request(t, "POST", "/v1/messages", say("hi", streaming), map[string]string{"x-sim-script": script})
		resp, err := b.http.Client().Do(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		// The start of the message arrives although the rest does not: it was flushed.
		var seen []byte
		for buf := make([]byte, 1024); !bytes.Contains(seen, []byte("event: ping")); {
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
		if e.Finished || e.Error != reason || e.Usage.OutputTokens != 1 || e.Usage.InputTokens == 0 {
			t.Errorf("%s: ledger = %+v, want %s with one output token", script, e, reason)
		}
	}
}

func TestAnAnswerThatIsNotStreamedCanBeCut(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	_, body, err := b.do(t, b.request(t, "POST", "/v1/messages", say("[[sim:cut=after:1]]", ""), nil))
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) == 0 {
		t.Errorf("read %d bytes, %v, want some and a cut connection", len(body), err)
	}
	if e := b.Ledger()[0]; e.Finished || e.Error != "cut" {
		t.Errorf("ledger = %+v, want unfinished", e)
	}
}

func TestDelaysAreKept(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{ChunkDelay: time.Hour})
	begun := time.Now()
	_, body := b.post(t, say("[[sim:delay_ms=2;first_byte_ms=20]]", streaming))
	deltas := count(events(t, body), "content_block_delta")
	if least := 20*time.Millisecond + time.Duration(deltas)*2*time.Millisecond; time.Since(begun) < least {
		t.Errorf("%d deltas took %v, want at least %v", deltas, time.Since(begun), least)
	}
}
