package sse_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

// block is an Event that owns its bytes.
type block struct {
	Raw, Name, Data string
	NoData, Partial bool
}

// split feeds the pieces to a Splitter. Pieces of an over-long event are merged,
// as their sizes depend on the reads.
func split(t *testing.T, limit int, pieces ...[]byte) ([]block, string) {
	t.Helper()
	s := sse.NewSplitter(limit)
	var got []block
	for _, p := range pieces {
		own := bytes.Clone(p)
		err := s.Feed(own, func(ev sse.Event) error {
			if len(ev.Raw) == 0 {
				t.Error("event with no bytes")
			}
			if last := len(got) - 1; ev.Partial && last >= 0 && got[last].Partial {
				got[last].Raw += string(ev.Raw)
				return nil
			}
			got = append(got, block{
				Raw: string(ev.Raw), Name: string(ev.Name), Data: string(ev.Data),
				NoData: ev.Data == nil, Partial: ev.Partial,
			})
			return nil
		})
		if err != nil {
			t.Fatalf("Feed: %v", err)
		}
		for i := range own {
			own[i] = 0xff // a reader reuses its buffer
		}
	}
	return got, string(s.Rest())
}

func joined(blocks []block, rest string) string {
	var b strings.Builder
	for _, ev := range blocks {
		b.WriteString(ev.Raw)
	}
	return b.String() + rest
}

// streams are the shapes of stream that the tests cut in every way.
var streams = map[string]string{
	"LF":           "event: ping\ndata: {\"type\": \"ping\"}\n\nevent: b\ndata: two\n\n",
	"CRLF":         "event: ping\r\ndata: 1\r\n\r\nevent: b\r\ndata: two\r\n\r\n",
	"CR":           "event: ping\rdata: 1\r\revent: b\rdata: two\r\r",
	"mixed ends":   "data: 1\n\r\ndata: 2\r\n\ndata: 3\r\n\rdata: 4\n\rdata: 5\n\n",
	"comments":     ": keep-alive\n\n:\n: two\ndata: x\n\n",
	"many lines":   "data: a\ndata:\ndata:b\ndata\n\n",
	"blank lines":  "\n\n\r\n\rdata: x\n\n\n",
	"no space":     "event:n\ndata:d\n\n",
	"two spaces":   "data:  d \n\n",
	"odd fields":   "id: 7\nretry: 10\nevent: first\nevent: last\ndatax: no\ndata: yes\n\n",
	"mark":         "\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n",
	"unicode":      "data: žluťoučký 🐎\n\n",
	"unfinished":   "data: x\n\nevent: b\ndata: cut he",
	"only a name":  "event: n\n\n",
	"nothing":      "",
	"broken UTF-8": "data: \xf0\x9f\n\n",
}

func TestSplitterReadsFields(t *testing.T) {
	t.Parallel()
	want := map[string][]block{
		"LF": {
			{Raw: "event: ping\ndata: {\"type\": \"ping\"}\n\n", Name: "ping", Data: `{"type": "ping"}`},
			{Raw: "event: b\ndata: two\n\n", Name: "b", Data: "two"},
		},
		"CRLF": {
			{Raw: "event: ping\r\ndata: 1\r\n\r\n", Name: "ping", Data: "1"},
			{Raw: "event: b\r\ndata: two\r\n\r\n", Name: "b", Data: "two"},
		},
		"CR": {{Raw: "event: ping\rdata: 1\r\r", Name: "ping", Data: "1"}},
		"mixed ends": {
			{Raw: "data: 1\n\r\n", Data: "1"},
			{Raw: "data: 2\r\n\n", Data: "2"},
			{Raw: "data: 3\r\n\r", Data: "3"},
			{Raw: "data: 4\n\r", Data: "4"},
			{Raw: "data: 5\n\n", Data: "5"},
		},
		"comments": {
			{Raw: ": keep-alive\n\n", NoData: true},
			{Raw: ":\n: two\ndata: x\n\n", Data: "x"},
		},
		"many lines": {{Raw: "data: a\ndata:\ndata:b\ndata\n\n", Data: "a\n\nb\n"}},
		"blank lines": {
			{Raw: "\n", NoData: true},
			{Raw: "\n", NoData: true},
			{Raw: "\r\n", NoData: true},
			{Raw: "\r", NoData: true},
			{Raw: "data: x\n\n", Data: "x"},
			{Raw: "\n", NoData: true},
		},
		"no space":   {{Raw: "event:n\ndata:d\n\n", Name: "n", Data: "d"}},
		"two spaces": {{Raw: "data:  d \n\n", Data: " d "}},
		"odd fields": {{Raw: streams["odd fields"], Name: "last", Data: "yes"}},
		"mark": {
			{Raw: "\xef\xbb\xbfdata: x\n\n", Data: "x"},
			{Raw: "\xef\xbb\xbfdata: y\n\n", NoData: true},
		},
		"unicode":      {{Raw: streams["unicode"], Data: "žluťoučký 🐎"}},
		"unfinished":   {{Raw: "data: x\n\n", Data: "x"}},
		"only a name":  {{Raw: "event: n\n\n", Name: "n", NoData: true}},
		"nothing":      nil,
		"broken UTF-8": {{Raw: "data: \xf0\x9f\n\n", Data: "\xf0\x9f"}},
	}
	for name, stream := range streams {
		got, rest := split(t, 0, []byte(stream))
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
		if joined(got, rest) != stream {
			t.Errorf("%s: raw bytes = %q, want %q", name, joined(got, rest), stream)
		}
	}
}

// TestSplitterIgnoresReads cuts every stream at every byte, into single bytes,
// and at random, with limits that some of the events exceed.
func TestSplitterIgnoresReads(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, stream := range streams {
		for _, limit := range []int{0, 1, 9, 20} {
			want, rest := split(t, limit, []byte(stream))
			check := func(pieces ...[]byte) {
				t.Helper()
				got, gotRest := split(t, limit, pieces...)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%s, limit %d, reads %q (-want +got):\n%s", name, limit, pieces, diff)
				}
				if gotRest != rest {
					t.Fatalf("%s, limit %d, reads %q: Rest = %q, want %q", name, limit, pieces, gotRest, rest)
				}
			}
			for i := range len(stream) {
				check([]byte(stream[:i]), []byte(stream[i:]))
			}
			check(bytes.SplitAfter([]byte(stream), nil)...)
			for range 20 {
				check(randomPieces(rnd, []byte(stream))...)
			}
		}
	}
}

func randomPieces(rnd *rand.Rand, p []byte) [][]byte {
	var pieces [][]byte
	for len(p) > 0 {
		n := 1 + rnd.IntN(min(len(p), 12))
		pieces = append(pieces, p[:n])
		p = p[n:]
	}
	return pieces
}

func TestSplitterPassesOverlongEventsInPieces(t *testing.T) {
	t.Parallel()
	long := "data: " + strings.Repeat("x", 100) + "\n\n"
	short := "event: b\ndata: 1\n\n"
	want := []block{
		{Raw: short, Name: "b", Data: "1"},
		{Raw: long, NoData: true, Partial: true},
		{Raw: short, Name: "b", Data: "1"},
	}
	got, rest := split(t, len(long)-1, []byte(short), []byte(long[:50]), []byte(long[50:]+short))
	if diff := cmp.Diff(want, got); diff != "" || rest != "" {
		t.Errorf("events (-want +got):\n%s\nRest = %q", diff, rest)
	}
	got, _ = split(t, len(long), []byte(long))
	if len(got) != 1 || got[0].Partial {
		t.Errorf("an event of exactly the limit came in pieces: %+v", got)
	}
}

func TestSplitterReturnsTheErrorOfEmit(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	calls := 0
	err := sse.NewSplitter(0).Feed([]byte("data: 1\n\ndata: 2\n\n"), func(sse.Event) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Feed = %v after %d calls, want %v after 1", err, calls, stop)
	}
}

func TestParseReadsAnUnfinishedEvent(t *testing.T) {
	t.Parallel()
	ev := sse.Parse([]byte("event: error\ndata: {}"))
	if string(ev.Name) != "error" || string(ev.Data) != "{}" {
		t.Errorf("Parse = %q %q, want \"error\" \"{}\"", ev.Name, ev.Data)
	}
}

func TestSplitterDoesNotAllocatePerEvent(t *testing.T) {
	s := sse.NewSplitter(0)
	stream := []byte("event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n")
	emit := func(sse.Event) error { return nil }
	allocs := testing.AllocsPerRun(100, func() {
		_ = s.Feed(stream[:30], emit)
		_ = s.Feed(stream[30:], emit)
	})
	if allocs != 0 {
		t.Errorf("Feed allocates %v times per event, want 0", allocs)
	}
}

func FuzzSplitter(f *testing.F) {
	for _, stream := range streams {
		f.Add([]byte(stream), uint16(len(stream)/2), uint8(40))
	}
	f.Fuzz(func(t *testing.T, stream []byte, at uint16, limit uint8) {
		cut := int(at) % (len(stream) + 1)
		want, wantRest := split(t, int(limit), stream)
		if got := joined(want, wantRest); got != string(stream) {
			t.Fatalf("raw bytes = %q, want %q", got, stream)
		}
		got, rest := split(t, int(limit), stream[:cut], stream[cut:])
		if diff := cmp.Diff(want, got); diff != "" || rest != wantRest {
			t.Fatalf("cut at %d: Rest = %q, want %q; events (-want +got):\n%s", cut, rest, wantRest, diff)
		}
	})
}

func BenchmarkSplitter(b *testing.B) {
	stream := bytes.Repeat([]byte("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n"), 32)
	s := sse.NewSplitter(0)
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		_ = s.Feed(stream, func(sse.Event) error { return nil })
	}
}
