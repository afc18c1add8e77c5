package proxy

import (
	"bytes"
	"compress/gzip"
	"math/rand/v2"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// passed runs a stream through the relay's own state in the given pieces and
// returns what would be passed on, what ends it, and what was metered.
// Each piece is read to where the one before was, as upstreams do it.
func passed(api API, encoded bool, pieces [][]byte) (string, answer) {
	r := &run{outbound: outbound{call: Call{API: api}}, meter: api.newMeter(0, false)}
	if encoded {
		r.decoder = newGunzip()
		defer r.decoder.Close()
	}
	s := &stream{run: r, split: sse.NewSplitter(maxEvent)}
	var out bytes.Buffer
	buf := make([]byte, len(slices.MaxFunc(pieces, func(a, b []byte) int { return len(a) - len(b) }))+1)
	for _, p := range pieces {
		s.ready, p = nil, buf[:copy(buf, p)]
		if s.end != nil {
			out.Write(p)
			continue
		}
		s.take(p)
		out.Write(s.ready)
		out.Write(s.end)
	}
	if s.end == nil && !encoded {
		out.Write(s.split.Rest())
	}
	return out.String(), *r.meter.Answer()
}

func pieces(r *rand.Rand, p []byte) [][]byte {
	var out [][]byte
	most := 40 << (r.IntN(3) * 2) // a part of an event, or several
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(most))
		out, p = append(out, p[:n]), p[n:]
	}
	return out
}

// streams are the committed streams, by API.
func streams(tb testing.TB) map[API][][]byte {
	tb.Helper()
	found := map[API][][]byte{}
	for api, pattern := range map[API]string{
		Messages: "../../../../sim/anthropic/testdata/*.sse", ChatCompletions: "../../../../sim/openai/testdata/chat*.sse", Responses: "../../../../sim/openai/testdata/resp*.sse",
	} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			tb.Fatalf("no streams in %s: %v", pattern, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				tb.Fatal(err)
			}
			found[api] = append(found[api], text)
		}
	}
	return found
}

// TestHowAStreamIsReadChangesNothing splits streams at random, compressed and
// not: the bytes are the same, and so is the usage.
func TestHowAStreamIsReadChangesNothing(t *testing.T) {
	t.Parallel()
	for api, texts := range streams(t) {
		for n, text := range texts {
			wantText, want := passed(api, false, [][]byte{text})
			if wantText != string(text) {
				t.Errorf("API %d, stream %d: %d bytes of %d pass", api, n, len(wantText), len(text))
			}
			var packed bytes.Buffer
			w := gzip.NewWriter(&packed)
			for event := range bytes.SplitAfterSeq(text, []byte("\n\n")) {
				w.Write(event) //nolint:errcheck // a buffer never fails
				w.Flush()
			}
			w.Close()
			for seed := range uint64(20) {
				r := rand.New(rand.NewPCG(seed, 1))
				if got, a := passed(api, false, pieces(r, text)); got != wantText || a != want {
					t.Fatalf("API %d, stream %d, seed %d: %+v, want %+v", api, n, seed, a, want)
				}
				if got, a := passed(api, true, pieces(r, packed.Bytes())); got != packed.String() || a != want {
					t.Fatalf("API %d, stream %d, seed %d, compressed: %+v, want %+v", api, n, seed, a, want)
				}
			}
		}
	}
}

// TestWhatIsPassedOnStaysWhereItIs reads several events at once, of which not all pass.
func TestWhatIsPassedOnStaysWhereItIs(t *testing.T) {
	t.Parallel()
	const chunk, usage = `data: {"choices":[{"delta":{"content":"x"}}]}` + "\n\n", `data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}` + "\n\n"
	for name, tt := range map[string]struct {
		before, read, passed string
		in                   bool
	}{
		"one event":                         {"", chunk, chunk, true},
		"all":                               {"", chunk + chunk, chunk + chunk, true},
		"all but the beginning of the next": {"", chunk + chunk + chunk[:9], chunk + chunk, true},
		"all before what is ours":           {"", chunk + chunk + usage, chunk + chunk, true},
		"all behind what is ours":           {"", usage + chunk + chunk, chunk + chunk, true},
		"all around what is ours":           {"", chunk + usage + chunk + chunk, chunk + chunk + chunk, false},
		"the end of one":                    {chunk[:9], chunk[9:], chunk, false},
		"the end of one, and others":        {chunk[:9], chunk[9:] + chunk + chunk, chunk + chunk + chunk, false},
		"… and what would be where it was":  {chunk[:9], chunk[9:] + usage[:20], chunk, false},
		"… around ours":                     {chunk[:9], chunk[9:] + usage + chunk, chunk + chunk, false},
		"the end of ours, and others":       {usage[:9], usage[9:] + chunk + chunk, chunk + chunk, false},
	} {
		s := &stream{run: &run{outbound: outbound{call: Call{API: ChatCompletions}}, meter: ChatCompletions.newMeter(0, true)}, split: sse.NewSplitter(maxEvent)}
		s.take([]byte(tt.before))
		read := append([]byte(tt.read), "what was read before"...)[:len(tt.read)]
		s.take(read)
		at := bytes.Index(read, []byte(chunk))
		in := at >= 0 && len(s.ready) > 0 && &s.ready[0] == &read[at]
		if string(s.ready) != tt.passed || in != tt.in {
			t.Errorf("%s: %q passes, in place: %t, want %q, %t", name, s.ready, in, tt.passed, tt.in)
		}
	}
}

func TestTheEndOfACompressedStreamIsHeldBack(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write([]byte("event: ping\ndata: {}\n\n")) //nolint:errcheck // a buffer never fails
	w.Flush()
	first := packed.Len()
	w.Write([]byte("event: message_stop\ndata: {}\n\n")) //nolint:errcheck // as above
	w.Close()
	r := &run{meter: Messages.newMeter(0, false), decoder: newGunzip()}
	defer r.decoder.Close()
	s := &stream{run: r, split: sse.NewSplitter(maxEvent)}
	s.take(packed.Bytes()[:first])
	if len(s.ready) != first || s.end != nil {
		t.Errorf("%d of %d bytes pass, the end is %q", len(s.ready), first, s.end)
	}
	s.ready = nil
	s.take(packed.Bytes()[first:])
	if len(s.ready) != 0 || !bytes.Equal(s.end, packed.Bytes()[first:]) {
		t.Errorf("%d bytes pass before the end was settled", len(s.ready))
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		api       API
		text      string
		want      pricing.Usage
		estimated bool
	}{
		{
			"message_delta wins, field by field", Messages,
			"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\n" +
				"event: message_delta\ndata: {\"usage\":{\"output_tokens\":9,\"input_tokens\":505}}\n\n",
			pricing.Usage{InputTokens: 505, CacheReadTokens: 7, OutputTokens: 9},
			false,
		},
		{
			"a stream without an end is estimated", Messages,
			"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n" +
				"event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"1234567\"}}\n\n",
			pricing.Usage{InputTokens: 5, OutputTokens: 4},
			true,
		},
		{
			"cache writes without a split are for five minutes", Messages,
			"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":5,\"cache_creation_input_tokens\":100,\"output_tokens\":1,\"cache_creation\":{\"ephemeral_1h_input_tokens\":60}}}}\n\n" +
				"event: message_delta\ndata: {\"usage\":{\"output_tokens\":9}}\n\n",
			pricing.Usage{InputTokens: 5, CacheWrite5mTokens: 40, CacheWrite1hTokens: 60, OutputTokens: 9},
			false,
		},
		{
			"cached tokens are no input", ChatCompletions,
			"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":60},\"completion_tokens_details\":{\"reasoning_tokens\":20}}}\n\ndata: [DONE]\n\n",
			pricing.Usage{InputTokens: 40, CacheReadTokens: 60, OutputTokens: 30, ReasoningTokens: 20},
			false,
		},
		{
			"null usage says nothing", ChatCompletions,
			"data: {\"choices\":[{\"delta\":{\"content\":\"123\"}}],\"usage\":null}\n\n",
			pricing.Usage{OutputTokens: 1},
			true,
		},
		{
			"the response carries the usage", Responses,
			"event: response.output_text.delta\ndata: {\"delta\":\"123\"}\n\n" +
				"event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":3,\"input_tokens_details\":{\"cached_tokens\":4}}}}\n\n",
			pricing.Usage{InputTokens: 5, CacheReadTokens: 4, OutputTokens: 3},
			false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, a := passed(tt.api, false, [][]byte{[]byte(tt.text)})
			if got, estimated := a.Usage(); got != tt.want || estimated != tt.estimated {
				t.Errorf("usage %+v, estimated %v, want %+v, %v", got, estimated, tt.want, tt.estimated)
			}
		})
	}
}

// FuzzMeter feeds any stream to every meter: nothing is lost, nothing panics,
// and no count is negative for counts that are not.
func FuzzMeter(f *testing.F) {
	for api, texts := range streams(f) {
		for _, text := range texts {
			f.Add(int(api), text, uint64(7))
		}
	}
	f.Add(int(Messages), []byte("event: message_stop\ndata: {}\n\nevent: half"), uint64(56)) // its rest was lost once
	f.Fuzz(func(t *testing.T, n int, text []byte, seed uint64) {
		api := API(((n % 3) + 3) % 3)
		got, a := passed(api, false, pieces(rand.New(rand.NewPCG(seed, 1)), text))
		if got != string(text) {
			t.Errorf("%d bytes of %d pass", len(got), len(text))
		}
		if u, _ := a.Usage(); !strings.Contains(string(text), "-") && (u.InputTokens < 0 || u.CacheWrite5mTokens < 0 || u.OutputTokens < 0) {
			t.Errorf("usage %+v", u)
		}
		m := api.newMeter(0, false)
		m.Body(text)
	})
}

// FuzzHeader filters any header: the virtual key never passes, whatever the name.
func FuzzHeader(f *testing.F) {
	f.Add("X-Custom", "prefix sk-virtual suffix", "Connection", "x-custom")
	f.Add("Authorization", "Bearer sk-virtual", "Cookie", "a=b")
	f.Add("Anthropic-Beta", "unknown", "Proxy-Authorization", "sk-virtual")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		name1, name2 = textproto.CanonicalMIMEHeaderKey(name1), textproto.CanonicalMIMEHeaderKey(name2)
		key := testKey()
		for _, l := range forUpstream(Header{name1: {value1}, name2: {value2}}, key) {
			if holds([]string{l.Value}, key) || staysHere(l.Name) && l.Name != "Accept-Encoding" || ofOneHop(l.Name) {
				t.Errorf("%s: %q leaves", l.Name, l.Value)
			}
		}
		for _, l := range forClient(head.Lines{{Name: name1, Value: value1}, {Name: name2, Value: value2}}, "req_1", "d1") {
			if own := strings.HasPrefix(l.Name, "X-Llmproxy-") || strings.HasPrefix(l.Name, "X-Litellm-"); staysThere(l.Name) && !own || own && l.Value != "req_1" && l.Value != "d1" {
				t.Errorf("%s reaches the client", l.Name)
			}
		}
	})
}
