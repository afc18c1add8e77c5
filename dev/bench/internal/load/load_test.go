package load

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/upstream"
)

// serve runs an upstream whose streams are paced as its control says.
func serve(t *testing.T, p upstream.Pace) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := upstream.New()
	s.SetPace(p)
	go s.Serve(l) //nolint:errcheck // closing the listener ends it
	return l.Addr().String()
}

func spec(addr, body string, stream bool) Spec {
	t := &Template{
		Before: []byte("POST /v1/messages HTTP/1.1\r\nX-Api-Key: "), Body: []byte(body), Stream: stream,
		After: fmt.Appendf(nil, "\r\nContent-Length: %d\r\n\r\n", len(body)),
	}
	return Spec{
		Addr: addr, Clients: 1, Measure: 100 * time.Millisecond, Begin: func() {}, End: func() {},
		Next: func(int64) Request { return Request{t, "sk-key"} },
	}
}

func TestAnswersAreCountedAndReadWhole(t *testing.T) {
	t.Parallel()
	for body, stream := range map[string]bool{`{"model":"m","stream":true}`: true, `{"model":"m"}`: false} {
		s := spec(serve(t, upstream.Pace{Deltas: 20}), body, stream)
		r := Run(s)
		if r.Failed > 0 || r.Answered == 0 || r.Answered != r.Sent {
			t.Errorf("stream %t: %d sent, %d answered, %d failed: %s", stream, r.Sent, r.Answered, r.Failed, r.FirstError)
		}
		if stream && (len(r.Lag) != 20*int(r.Done) || len(r.Last) != int(r.Done)) {
			t.Errorf("%d streams: lags of %d deltas and %d ends, want 20 and one each", r.Done, len(r.Lag), len(r.Last))
		}
	}
}

func TestAnAnswerThatIsNoStreamFails(t *testing.T) {
	t.Parallel()
	if r := Run(spec(serve(t, upstream.Pace{}), `{"model":"m"}`, true)); r.Failed == 0 || r.Answered > 0 {
		t.Errorf("%d answered, %d failed, want only failures", r.Answered, r.Failed)
	}
}

// TestLatencyCountsFromWhenARequestWasDue sends ten times as fast as it is answered:
// the n-th request waits for those before it, which must show. A wait is never
// shorter than it was asked for, so the bounds hold on any machine.
func TestLatencyCountsFromWhenARequestWasDue(t *testing.T) {
	t.Parallel()
	const service = 20 * time.Millisecond
	s := spec(serve(t, upstream.Pace{First: service, Deltas: 1}), `{"model":"m","stream":true}`, true)
	s.Rate, s.Measure = 10/service.Seconds(), 10*service
	r := Run(s)
	if r.Sent < 100 || r.Failed > 0 || len(r.Whole) != int(r.Sent) {
		t.Errorf("%d requests were sent, %d failed, %d measured; want all 101 that were due", r.Sent, r.Failed, len(r.Whole))
	}
	for i, d := range r.Whole {
		if least := time.Duration(i+1)*service - time.Duration(i)*service/10; d < least {
			t.Fatalf("request %d took %s from when it was due, want at least %s", i, d, least)
		}
		if most := d - service; r.TTFB[i] > most {
			t.Fatalf("a first byte came after %s, want at most %s: without the time that the upstream took", r.TTFB[i], most)
		}
	}
}
