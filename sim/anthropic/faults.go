package anthropic

import (
	"context"
	"net/http"
	"time"
)

// faults are the parts of a script that times=N ends. The counts of deltas after
// which something happens are -1 when it does not.
type faults struct {
	status      int // zero: no HTTP error
	retryAfter  int
	shouldRetry string
	body        string
	close       string // empty: the request is answered

	streamErrorAfter int
	errorType        string
	cutAfter         int
	stallAfter       int
	pingsAfter       int
	pingsFor         time.Duration // zero: until the client goes
	malformedAfter   int

	encoding string // empty: none
	huge     int    // bytes; zero: no such delta
	trickle  int    // bytes; zero: whole events
}

func noFaults() faults {
	return faults{
		streamErrorAfter: -1, cutAfter: -1, stallAfter: -1, pingsAfter: -1, malformedAfter: -1,
		errorType: "overloaded_error",
	}
}

// begin does what the script wants before the first byte of the answer, and
// returns the error that it wants in place of the answer.
func (c *call) begin(sc script) error {
	c.encoding = sc.encoding
	if err := pause(c.r.Context(), sc.firstByte); err != nil {
		return err
	}
	if sc.close != "" {
		hangUp(c.w)
		return errClosed
	}
	if sc.status == 0 {
		return nil
	}
	return &apiError{
		Status: sc.status, Message: "simulated error", RetryAfter: sc.retryAfter,
		ShouldRetry: sc.shouldRetry, Body: sc.body,
	}
}

// scripted gives a route that takes no message what the server's script and the
// header want before the first byte.
func (s *Server) scripted(h func(*call) error) func(*call) error {
	return func(c *call) error {
		sc, err := s.readScript(c.r.Header.Get("x-sim-script"), nil)
		if err != nil {
			return err
		}
		if err := c.begin(sc); err != nil {
			return err
		}
		return h(c)
	}
}

// hold is the silence that the script wants of an answer in one piece.
func (f *faults) hold(ctx context.Context) error {
	switch {
	case f.stallAfter >= 0, f.pingsAfter >= 0 && f.pingsFor == 0:
		<-ctx.Done()
		return errStalled
	case f.pingsAfter >= 0:
		return pause(ctx, f.pingsFor)
	}
	return nil
}

// pingEvery is the pause between the pings of stall_pings.
const pingEvery = 20 * time.Millisecond

// oddities are events that a client must bear, and a relay pass on, although
// none of them looks like what the API sends. The broken data stands under ping,
// whose data the official Go SDK skips unread.
var oddities = []string{
	"event: ping\ndata: this is no JSON {\n\n",
	"event: sim_unknown\ndata: {\"type\":\"sim_unknown\"}\n\n",
	": a comment, and nothing else\n\n",
	"event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n",
	"event: ping\ndata: {\"type\":\ndata: \"ping\"}\n\n",
	"event: ping\nsim_field: no standard knows it\ndata: {\"type\": \"ping\"}\n\n",
	"id: 7\nretry: 10000\nevent: ping\ndata: {\"type\": \"ping\"}\n\n",
}

// fault does what the script wants at this point. At the end of the message
// everything that has not come yet is due.
func (st *stream) fault(atEnd bool) error {
	due := func(after int) bool {
		return after == st.sent || (atEnd && after > st.sent)
	}
	sc := &st.p.script
	if due(sc.malformedAfter) {
		for _, event := range oddities {
			if err := st.write([]byte(event)); err != nil {
				return err
			}
		}
	}
	if due(sc.pingsAfter) {
		if err := st.ping(sc.pingsFor); err != nil {
			return err
		}
	}
	switch {
	case due(sc.cutAfter):
		return errCut
	case due(sc.stallAfter):
		<-st.c.r.Context().Done()
		return errStalled
	case due(sc.streamErrorAfter):
		body := errorBody{Type: "error", Error: errorDetail{Type: sc.errorType, Message: "Overloaded"}, RequestID: st.c.requestID}
		if err := st.send("error", body); err != nil {
			return err
		}
		return errStreamError
	}
	return nil
}

// ping sends nothing but pings for so long, or until the client goes.
func (st *stream) ping(most time.Duration) error {
	for begun := time.Now(); most == 0 || time.Since(begun) < most; {
		if err := st.sendRaw("ping", `{"type": "ping"}`); err != nil {
			return errStalled
		}
		if err := pause(st.c.r.Context(), pingEvery); err != nil {
			return errStalled
		}
	}
	return nil
}

// hangUp closes the client's connection without a byte of an answer. It needs
// HTTP/1, which all clients of the API speak when there is no TLS.
func hangUp(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// drop closes the client's connection in the middle of the answer, after what
// was written has left.
func drop(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush()
	hangUp(w)
}
