package anthropic_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// read returns what can be read.
func read(r io.ReadCloser) string {
	defer r.Close()
	p, _ := io.ReadAll(r)
	return string(p)
}

func TestAConnectionIsClosedBeforeTheHeaders(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
		body := say("[[sim:close=before_headers;times=1]] "+path, "")
		resp, err := b.http.Client().Do(b.request(t, "POST", path, body, nil))
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v, want EOF", path, err)
		}
		if resp, _, _ := b.do(t, b.request(t, "POST", path, body, nil)); resp.StatusCode != 200 {
			t.Errorf("%s: the second status = %d, want 200", path, resp.StatusCode)
		}
	}
	if len(b.Requests()) != 4 || len(b.Ledger()) != 1 {
		t.Errorf("%d requests, %d entries, want 4 and 1", len(b.Requests()), len(b.Ledger()))
	}
}

func TestPathsThatAreNotThereNeedNoKey(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	none := map[string]string{"x-api-key": "", "anthropic-version": ""}
	for _, tt := range []struct {
		method, path string
		header       map[string]string
		status       int
	}{
		{"GET", "/", nil, 404},
		{"GET", "/", none, 404},
		{"HEAD", "/", none, 404},
		{"HEAD", "/api/hello", none, 404},
		{"POST", "/v1/complete", nil, 404},
		{"GET", "/v1/messages", nil, 404},
		{"POST", "/v1/complete", none, 401},
		{"GET", "/", map[string]string{"x-api-key": "sk-virtual"}, 401},
	} {
		resp, body, _ := b.do(t, b.request(t, tt.method, tt.path, "", tt.header))
		if resp.StatusCode != tt.status || resp.Header.Get("content-type") != "application/json" {
			t.Errorf("%s %s = %d %s, want %d in JSON", tt.method, tt.path, resp.StatusCode, resp.Header.Get("content-type"), tt.status)
		}
		if tt.method != "HEAD" && decode[apiError](t, body).Type != "error" {
			t.Errorf("%s %s: %s, want Anthropic's error shape", tt.method, tt.path, body)
		}
	}
}

func TestAHugeDeltaComesFirst(t *testing.T) {
	t.Parallel()
	const size = 3_000_000
	b := start(t, anthropic.Options{})
	roomy := func(extra string) string {
		return strings.Replace(strings.Replace(say("[[sim:huge=3000000]]", extra), "claude-haiku-4-5", "claude-opus-5-5", 1), `"max_tokens":1000`, `"max_tokens":128000`, 1)
	}
	_, stream := b.post(t, roomy(streaming))
	var sizes []int
	for _, raw := range bytes.SplitAfter(stream, []byte("\n\n")) {
		if bytes.HasPrefix(raw, []byte("event: content_block_delta")) {
			sizes = append(sizes, len(raw))
		}
	}
	if len(sizes) != 7 || sizes[0] < size || sizes[0] > size+200 || sizes[1] > 200 {
		t.Errorf("deltas of %d bytes, want a huge one and the usual six", sizes)
	}
	if got := lastUsage(t, stream).OutputTokens; got != 128_000 {
		t.Errorf("output tokens = %d, want what max_tokens allows", got)
	}
	_, small := b.post(t, say("[[sim:huge=400]]", streaming))
	if got := lastUsage(t, small).OutputTokens; got != 121 {
		t.Errorf("output tokens = %d, want 100 and the usual 21", got)
	}
	_, whole := b.post(t, roomy(bashTool))
	if got := decode[reply](t, whole); len(got.Content) != 2 || len(got.Content[0].Text) != size || got.Content[1].Type != "tool_use" {
		t.Errorf("blocks = %d, want a huge text and the tool call", len(got.Content))
	}
	for _, e := range b.Ledger() {
		if !e.Finished {
			t.Errorf("entry %+v, want finished", e)
		}
	}
}

// oddLines are what malformed sends, as a relay must pass it on.
const oddLines = "event: ping\ndata: this is no JSON {\n\n" +
	"event: sim_unknown\ndata: {\"type\":\"sim_unknown\"}\n\n" +
	": a comment, and nothing else\n\n" +
	"event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n" +
	"event: ping\ndata: {\"type\":\ndata: \"ping\"}\n\n" +
	"event: ping\nsim_field: no standard knows it\ndata: {\"type\": \"ping\"}\n\n" +
	"id: 7\nretry: 10000\nevent: ping\ndata: {\"type\": \"ping\"}\n\n"

func TestOddEventsComeOnceAndTheStreamGoesOn(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for script, deltas := range map[string]int{"malformed=after:0": 0, "malformed=after:2": 2, "malformed=after:99": 6} {
		r := b.request(t, "POST", "/v1/messages", say("hi", streaming), map[string]string{"x-sim-script": script})
		_, odd, _ := b.do(t, r)
		before, after, found := strings.Cut(string(odd), oddLines)
		if !found || strings.Count(before, "event: content_block_delta") != deltas {
			t.Errorf("%s: stream %q, want the odd lines after %d deltas", script, odd, deltas)
		}
		_, usual := b.post(t, say("hi", streaming))
		if diff := cmp.Diff(ids.ReplaceAllString(string(usual), "ID"), ids.ReplaceAllString(before+after, "ID")); diff != "" {
			t.Errorf("%s: the rest (-usual +got):\n%s", script, diff)
		}
	}
}

func TestPingsGoOnWhileTheTextStalls(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	begun := time.Now()
	_, body := b.post(t, say("[[sim:stall_pings=after:2;stall_pings_ms=70]]", streaming))
	list := events(t, body)
	if n := count(list, "ping"); n < 3 || n > 6 {
		t.Errorf("%d pings, want the usual one and about four", n)
	}
	if count(list, "content_block_delta") != 6 || count(list, "message_stop") != 1 || time.Since(begun) < 70*time.Millisecond {
		t.Errorf("after %v: %v, want the whole answer after 70 ms", time.Since(begun), list)
	}
	begun = time.Now()
	if b.post(t, say("[[sim:stall_pings=after:2;stall_pings_ms=70]]", "")); time.Since(begun) < 70*time.Millisecond {
		t.Errorf("an answer in one piece took %v, want 70 ms", time.Since(begun))
	}
}

func TestPingsEndWithTheClient(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := b.http.Client().Do(b.request(t, "POST", "/v1/messages", say("[[sim:stall_pings=after:1]]", streaming), nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buf := make([]byte, 1024); bytes.Count(seen, []byte("event: ping")) < 4; {
		n, err := resp.Body.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			t.Fatalf("read: %v after %q", err, seen)
		}
	}
	cancel()
	_ = resp.Body.Close()
	b.http.Close() // waits for the handler
	if e := b.Ledger()[0]; e.Finished || e.Error != "stalled" || e.Usage.OutputTokens != 4 {
		t.Errorf("ledger = %+v, want stalled after one delta", e)
	}
}

// pieces records how an answer was written.
type pieces struct {
	*httptest.ResponseRecorder
	sizes   []int
	flushes int
}

func (p *pieces) Write(b []byte) (int, error) {
	p.sizes = append(p.sizes, len(b))
	return p.ResponseRecorder.Write(b)
}

func (p *pieces) Flush() { p.flushes++ }

func TestAStreamTrickles(t *testing.T) {
	t.Parallel()
	s := anthropic.New(anthropic.Options{Script: "trickle=7"})
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/messages", strings.NewReader(say("[[sim:say=žluťoučký kůň 🐎]]", streaming)))
	r.Header.Set("x-api-key", "any")
	r.Header.Set("anthropic-version", "2023-06-01")
	p := &pieces{ResponseRecorder: httptest.NewRecorder()}
	s.ServeHTTP(p, r)
	if len(p.sizes) < 100 || p.flushes != len(p.sizes) {
		t.Errorf("%d pieces, %d flushes, want many and as many", len(p.sizes), p.flushes)
	}
	for _, n := range p.sizes {
		if n > 7 {
			t.Errorf("a piece of %d bytes, want at most 7", n)
		}
	}
	var text string
	for _, ev := range events(t, p.Body.Bytes()) {
		if ev.name == "content_block_delta" {
			text += decode[struct{ Delta struct{ Text string } }](t, []byte(ev.data)).Delta.Text
		}
	}
	if text != "žluťoučký kůň 🐎" {
		t.Errorf("text = %q", text)
	}
}
