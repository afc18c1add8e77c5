package openai

import (
	"context"
	"encoding/json"
	"time"
)

// turn is what both APIs make of a request: all that decides its answer.
type turn struct {
	model       model
	script      script
	prompt      []byte // rendered
	tools       []tool
	choice      toolChoice
	answersTool bool
	effort      string // of the reasoning
	tier        string // the service tier that serves it
	limit       int64  // most output tokens; zero: no limit
}

// limits of a request that both APIs have.
type limits struct {
	param  string // that sets the limit
	value  *int64
	lowest int64
}

// check returns the limit, or why it is refused.
func (l limits) check() (int64, error) {
	if l.value == nil {
		return 0, nil
	}
	if *l.value < l.lowest {
		return 0, invalid(l.param, "integer_below_min_value",
			"Invalid '%s': integer below minimum value. Expected a value >= %d, but got %d instead.", l.param, l.lowest, *l.value)
	}
	return *l.value, nil
}

// serviceTier returns the tier that serves a request which asks for it.
func serviceTier(asked string) (string, error) {
	switch asked {
	case "", "auto", "default":
		return "default", nil
	case "flex", "priority", "scale":
		return asked, nil
	}
	return "", invalid("service_tier", "invalid_value",
		"Invalid value: '%s'. Supported values are: 'auto', 'default', 'flex', 'scale', and 'priority'.", asked)
}

// begin does what the script of t wants before the first byte.
func (s *Server) begin(c *call, t *turn) error {
	if t.script.encoding == "gzip" {
		c.compress()
	}
	if err := pause(c.r.Context(), millis(t.script.firstByteMillis)); err != nil {
		return err
	}
	if err := s.fault(t); err != nil {
		return err
	}
	return nil
}

// pause waits for d, or returns errAborted as soon as the client goes.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		if ctx.Err() != nil {
			return errAborted
		}
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errAborted
	}
}

// whole sends an answer in one piece and books it.
func (s *Server) whole(c *call, t *turn, e Entry, v any) error {
	if t.script.stallAfter >= 0 {
		<-c.r.Context().Done()
		return errStalled
	}
	body, err := encode(v)
	if err != nil {
		return err
	}
	cut := t.script.cutAfter >= 0
	e.RequestID, e.Model, e.Reported, e.Finished = c.requestID, t.model.dated, !cut, !cut
	if cut {
		e.Error = errCut.Error()
	}
	s.book.addEntry(e)
	err = c.json(body, cut)
	if err != nil && !cut {
		s.book.update(e.ID, func(e *Entry) { e.Reported, e.Finished, e.Error = false, false, errAborted.Error() })
	}
	return err
}

// decode reads the JSON of a request.
func decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return invalid("", "", "We could not parse the JSON body of your request. (simulator: %v)", err)
	}
	return nil
}
