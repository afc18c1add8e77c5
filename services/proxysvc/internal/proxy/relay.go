package proxy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/leash"
	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// maxEvent is the longest event that is held back until it is complete; the
// pieces of a longer one are passed on as they come.
const maxEvent = 1 << 20

// A stream is read in small pieces, since most have one event at a time and thousands
// may be open, until one comes that is faster than it is read.
const (
	firstRead = 4 << 10
	fullRead  = 32 << 10
)

// Pieces is an answer's body whose bytes need not be copied to be read.
type Pieces interface {
	// Next returns what has come, which is valid until the next call, or waits for it.
	// The end, and any other error, comes by itself.
	Next() ([]byte, error)
	// Ready says whether Next has bytes without waiting.
	Ready() bool
	// Ended says whether Next has the end without waiting.
	Ended() bool
}

// copied are the pieces of any other body.
type copied struct {
	io.Reader
	buf []byte
}

// Next implements Pieces, but for errors: they may come with the last piece.
func (c *copied) Next() ([]byte, error) {
	if len(c.buf) == 0 {
		c.buf = make([]byte, firstRead)
	}
	n, err := c.Read(c.buf)
	p := c.buf[:n]
	if n == len(c.buf) && n < fullRead {
		c.buf = make([]byte, fullRead)
	}
	return p, err
}

// Ready implements Pieces: nobody knows.
func (c *copied) Ready() bool { return false }

// Ended implements Pieces: nobody knows.
func (c *copied) Ended() bool { return false }

// relay passes a stream on, event by event and byte for byte, and meters it on
// the side. The event that ends the answer is held back until the request is on
// the ledger.
func (r *run) relay(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	if err := sink.Start(resp.Status, r.header(resp, 0)); err != nil {
		return r.abandon(ctx, err)
	}
	s := &stream{run: r, split: sse.NewSplitter(maxEvent)}
	if r.decoder != nil {
		defer r.decoder.Close()
	}
	pieces, ok := resp.Body.(Pieces)
	if !ok {
		pieces = &copied{Reader: resp.Body}
	}
	for begun := false; ; {
		if !begun && !pieces.Ready() {
			if err := sink.Write(nil); err != nil {
				return r.abandon(ctx, err)
			}
			begun = true
		}
		p, readErr := pieces.Next()
		s.ready = nil
		if len(p) > 0 {
			r.alive()
			s.take(p)
		}
		if len(s.ready) > 0 {
			if err := sink.Write(s.ready); err != nil {
				return r.abandon(ctx, err)
			}
			begun = true
			r.alive() // a slow client is not the upstream's silence
		}
		if s.end != nil {
			return r.finish(ctx, sink, s.end, resp.Body)
		}
		if readErr != nil {
			return r.broken(ctx, sink, s.split.Rest(), readErr)
		}
		s.note()
	}
}

// stream is the state of a relay between two reads.
type stream struct {
	*run
	split  *sse.Splitter
	ready  []byte    // to be passed on now; a part of what was read, or joined
	joined []byte    // what had to be copied to be passed on at once
	end    []byte    // what ends the answer; nil: it has not arrived
	noted  time.Time // when the usage was last put on the ledger
}

// take sorts what was read into what is passed on now and what ends the answer.
// A compressed answer is only looked at: its bytes pass as they came, but for
// those that bring the end.
func (s *stream) take(p []byte) {
	if s.decoder == nil {
		inPlace := len(s.split.Rest()) == 0
		s.events(p, func(raw []byte) {
			s.pass(raw, inPlace)
			inPlace = true
		})
		if s.end != nil {
			s.end = append(s.end, s.split.Rest()...) // what has begun after it
		}
		return
	}
	plain, err := s.decoder.Feed(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.opaque = true
	}
	s.events(plain, func([]byte) {})
	if s.end != nil {
		s.end = append([]byte(nil), p...)
		return
	}
	s.ready = p
}

// pass adds an event to what is passed on now. Events that were read one behind the other
// are passed on where they are; not in place is one that the splitter has joined.
func (s *stream) pass(raw []byte, inPlace bool) {
	n := len(s.ready)
	switch {
	case n == 0 && inPlace:
		s.ready = raw
	case n > 0 && n < cap(s.ready) && &s.ready[:n+1][n] == &raw[0]:
		s.ready = s.ready[:n+len(raw)]
	default:
		s.joined = append(append(s.joined[:0], s.ready...), raw...)
		s.ready = s.joined
	}
}

// events meters the events that are complete and gives those that pass to
// `write`.
func (s *stream) events(p []byte, write func(raw []byte)) {
	_ = s.split.Feed(p, func(e sse.Event) error { // the callback never fails
		verdict := pass
		if e.Partial {
			s.meter.Piece(len(e.Raw))
		} else {
			verdict = s.meter.Event(e.Name, e.Data)
		}
		switch {
		case verdict == last, s.end != nil:
			s.end = append(s.end, e.Raw...)
		case verdict == pass:
			write(e.Raw)
		}
		return nil
	})
}

// blind passes a stream on that cannot be read. Whatever was read last is held
// back until the next bytes come: it may be the end.
func (r *run) blind(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	if err := sink.Start(resp.Status, r.header(resp, 0)); err != nil {
		return r.abandon(ctx, err)
	}
	if err := sink.Write(nil); err != nil {
		return r.abandon(ctx, err)
	}
	buf := make([]byte, fullRead)
	var held []byte
	for {
		n, err := resp.Body.Read(buf)
		r.alive()
		if n > 0 && len(held) > 0 {
			if err := sink.Write(held); err != nil {
				return r.abandon(ctx, err)
			}
			held = held[:0]
		}
		held = append(held, buf[:n]...)
		switch {
		case errors.Is(err, io.EOF):
			r.meter.Answer().Complete = true
			return r.finish(ctx, sink, held, resp.Body)
		case err != nil:
			return r.broken(ctx, sink, nil, err)
		}
	}
}

// note puts the usage so far on the ledger: at once when the input is known,
// then from time to time.
func (s *stream) note() {
	a := s.meter.Answer()
	now := s.s.now()
	if !a.started || now.Sub(s.noted) < s.s.set.ProgressInterval {
		return
	}
	s.noted = now
	u, estimated := a.Usage()
	u = s.plausible(u, estimated)
	cost, _ := s.cost(u)
	s.ticket.Progress(&ledger.Progress{MessageID: a.MessageID, Usage: u, Cost: min(cost, s.admit.Hold)})
}

// finish settles an answer whose last event has arrived and then releases that
// event and whatever the upstream still sends.
func (r *run) finish(ctx context.Context, sink Sink, end []byte, rest io.Reader) error {
	status := ledger.Completed
	if a := r.meter.Answer(); a.ErrorType != "" || !a.Complete {
		status = ledger.Interrupted
	}
	if err := r.settle(ctx, status, nil); err != nil {
		return ErrCut // the answer may not look complete
	}
	pass := sink.Write
	if p, ok := rest.(Pieces); ok && p.Ended() {
		pass = sink.Last
	}
	if err := pass(end); err != nil {
		return err
	}
	tail, err := io.ReadAll(io.LimitReader(rest, maxErrorBody))
	if len(tail) > 0 {
		if err := sink.Write(tail); err != nil {
			return err
		}
	}
	if err != nil && ctx.Err() == nil {
		return ErrCut
	}
	return nil
}

// broken ends a stream that ended before its last event: the upstream cut it,
// the client left, or we stopped it. One that we stop ends with a typed error
// event; one that the upstream cut is cut for the client too.
func (r *run) broken(ctx context.Context, sink Sink, rest []byte, readErr error) error {
	cause := leash.Cause(ctx)
	if cause == nil {
		if len(rest) > 0 && r.decoder == nil {
			_ = sink.Write(rest) // the half event that arrived; the cut follows
		}
		if err := r.settle(ctx, ledger.Interrupted, errUpstream(readErr)); err != nil {
			return errors.Join(ErrCut, err)
		}
		return ErrCut
	}
	status, own := ending(cause)
	if err := r.settle(ctx, status, own); err != nil || own == nil {
		return errors.Join(ErrCut, err)
	}
	if r.decoder != nil || r.opaque {
		return ErrCut // nothing can be added to a compressed stream
	}
	return sink.Write(r.call.API.errorEvent(own, r.call.RequestID))
}

// abandon settles a stream whose client has gone, or takes nothing any more. The
// upstream call is cancelled at once; what was received is billed.
func (r *run) abandon(ctx context.Context, gone error) error {
	status := ledger.Aborted
	if cause := leash.Cause(ctx); cause != nil {
		status, _ = ending(cause) // it was stopped while it waited for the client
	}
	r.life.End(gone)
	return errors.Join(gone, r.settle(ctx, status, nil))
}
