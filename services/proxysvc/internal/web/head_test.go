package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestTheHeadOfAStreamWaitsForNothing has an upstream send the head of its answer, and
// perhaps the beginning of the first event, and the rest when the client has the head.
func TestTheHeadOfAStreamWaitsForNothing(t *testing.T) {
	t.Parallel()
	const events = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n" +
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n" +
		"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
	for name, first := range map[string]int{"a head alone": 0, "half an event": 40, "an event": strings.Index(events, "\n\n") + 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived := make(chan struct{})
			s := newStandBefore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, events[:first]) //nolint:errcheck // the test sees
				w.(http.Flusher).Flush()
				select {
				case <-arrived:
					io.WriteString(w, events[first:]) //nolint:errcheck // the test sees
				case <-r.Context().Done():
				}
			}), nil)
			resp := s.post(body(true, ""))
			close(arrived)
			if got := read(t, resp); got != events {
				t.Errorf("got %q", got)
			}
			s.row()
		})
	}
}
