package web_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestABodyThatIsStillWrittenIsNobodyElses has an upstream that begins to answer before
// it has read the request. While it waits, others come, with bodies of the same size: what
// it reads then is the first one's all the same.
func TestABodyThatIsStillWrittenIsNobodyElses(t *testing.T) {
	t.Parallel()
	const size = 7 << 20 // more than the sockets hold
	mine := func(c string) string { return body(true, strings.Repeat(c, size)) }
	goOn, got := make(chan struct{}), make(chan []byte, 10)
	var requests atomic.Int64
	s := newStandBefore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := requests.Add(1) == 1
		w.Header().Set("Content-Type", "text/event-stream")
		if first {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()    //nolint:errcheck // the test sees it
			io.WriteString(w, start) //nolint:errcheck // as above
			rc.Flush()
			<-goOn
		}
		body, _ := io.ReadAll(r.Body) // what arrived is compared
		got <- body
		if !first {
			io.WriteString(w, start) //nolint:errcheck // as above
		}
		io.WriteString(w, end) //nolint:errcheck // as above
	}), nil)
	early := s.post(mine("a"))
	readUntil(t, early.Body, "message_start") // so that its body is released
	for range 3 {
		if read(t, s.post(mine("b"))); string(<-got) != mine("b") {
			t.Error("the upstream got another body than was sent")
		}
	}
	close(goOn)
	if first := <-got; string(first) != mine("a") {
		t.Errorf("the upstream got %d bytes of others", bytes.Count(first, []byte("bb"))*2)
	}
	if text := read(t, early); !strings.Contains(text, "message_stop") {
		t.Errorf("the answer ended with %s", text)
	}
}

const (
	start = "event: message_start\n" +
		`data: {"type":"message_start","message":{"id":"msg_1","type":"message","model":"claude-haiku-4-5","usage":{"input_tokens":5,"output_tokens":1}}}` + "\n\n"
	end = "event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}` + "\n\n" +
		"event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n"
)

// TestARefusedBodyIsSentAgainWhole has an upstream that refuses twice before it has read
// anything, beside others that take what comes free.
func TestARefusedBodyIsSentAgainWhole(t *testing.T) {
	t.Parallel()
	const size = 2000 << 10
	mine := body(true, strings.Repeat("a", size))
	got := make(chan []byte, 10)
	var refused atomic.Int64
	s := newStandBefore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Anthropic-Beta") == "first" && refused.Add(1) <= 2 {
			w.Header().Set("Retry-After-Ms", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body) // what arrived is compared
		if r.Header.Get("Anthropic-Beta") == "first" {
			got <- body
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, start+end) //nolint:errcheck // the test reads it
	}), nil)
	s.router.Replace(s.routing(`
model_list: [{model_name: "*", litellm_params: {model: "anthropic/*", api_base: os.environ/ANTHROPIC_API_BASE, api_key: os.environ/ANTHROPIC_API_KEY}}]
router_settings: {num_retries: 2, allowed_fails: 100, retry_after: 0}
`))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			read(t, s.post(body(true, strings.Repeat("b", size))))
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.proxy.URL+"/v1/messages", strings.NewReader(mine))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", virtualKey)
	req.Header.Set("Anthropic-Beta", "first")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text := read(t, resp); !strings.Contains(text, "message_stop") {
		t.Fatalf("the answer is %d %s", resp.StatusCode, text)
	}
	if refused.Load() != 3 {
		t.Errorf("%d attempts, want 3", refused.Load())
	}
	if string(<-got) != mine {
		t.Error("the upstream got another body than was sent")
	}
	<-done
}
