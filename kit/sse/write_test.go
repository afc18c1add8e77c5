package sse_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, event, data, want string
	}{
		{"named event", "ping", `{"type":"ping"}`, "event: ping\ndata: {\"type\":\"ping\"}\n\n"},
		{"no name", "", "x", "data: x\n\n"},
		{"no data", "ping", "", "event: ping\ndata: \n\n"},
		{"several lines", "e", "a\nb\r\nc\rd", "event: e\ndata: a\ndata: b\ndata: c\ndata: d\n\n"},
		{"line break at the end", "", "a\n", "data: a\ndata: \n\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var w countingWriter
			if err := sse.Write(&w, tt.event, []byte(tt.data)); err != nil {
				t.Fatalf("Write: %v", err)
			}
			if diff := cmp.Diff(tt.want, w.String()); diff != "" {
				t.Errorf("Write (-want +got):\n%s", diff)
			}
			if w.calls != 1 {
				t.Errorf("Write made %d writes, want 1", w.calls)
			}
			got, rest := split(t, 0, w.Bytes())
			if len(got) != 1 || got[0].Name != tt.event || rest != "" {
				t.Errorf("read back: %+v, Rest = %q", got, rest)
			}
		})
	}
}

func TestWriteRefusesALineBreakInTheName(t *testing.T) {
	t.Parallel()
	var w countingWriter
	if err := sse.Write(&w, "a\ndata: forged", nil); err == nil || w.calls != 0 {
		t.Errorf("Write = %v after %d writes, want an error and none", err, w.calls)
	}
}

func TestWriteReturnsTheErrorOfTheWriter(t *testing.T) {
	t.Parallel()
	if err := sse.Write(brokenWriter{}, "a", nil); !errors.Is(err, errBroken) {
		t.Errorf("Write = %v, want %v", err, errBroken)
	}
}

type countingWriter struct {
	bytes.Buffer
	calls int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.calls++
	return w.Buffer.Write(p)
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
