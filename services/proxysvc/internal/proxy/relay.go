package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// maxEvent is the longest event that is held back until it is complete; the
// pieces of a longer one are passed on as they come.
const maxEvent = 1 << 20

// relay passes a stream on, event by event and byte for byte, and meters it on
// the side. The event that ends the answer is held back until the request is on
// the ledger.
func (r *run) relay(ctx context.Context, resp *UpstreamResponse, sink Sink) error {
	if err := sink.Start(resp.Status, r.header(resp)); err != nil {
		return r.abandon(ctx, err)
	}
	split := sse.NewSplitter(maxEvent)
	buf := make([]byte, 32<<10)
	var ready bytes.Buffer // complete events of one read, passed on together
	var last []byte        // the event that ends the answer
	noted := r.admit.StartedAt
	for {
		n, readErr := resp.Body.Read(buf)
		r.idle.Reset(r.s.set.IdleTimeout)
		started := r.meter.started
		ready.Reset()
		_ = split.Feed(buf[:n], func(e sse.Event) error { // the callback never fails
			if last != nil || !e.Partial && isLast(e.Name) {
				last = append(last, e.Raw...)
			} else {
				ready.Write(e.Raw)
			}
			if !e.Partial {
				r.meter.Event(e.Name, e.Data)
			}
			return nil
		})
		if ready.Len() > 0 {
			if err := sink.Write(ready.Bytes()); err != nil {
				return r.abandon(ctx, err)
			}
		}
		if last != nil {
			return r.finish(ctx, sink, last, resp.Body)
		}
		if readErr != nil {
			return r.broken(ctx, sink, split.Rest(), readErr)
		}
		if now := r.s.now(); r.meter.started && (!started || now.Sub(noted) >= r.s.set.ProgressInterval) {
			noted = now
			r.note()
		}
	}
}

// isLast says whether an event ends the answer: nothing of use follows it.
func isLast(name []byte) bool {
	return string(name) == "message_stop" || string(name) == "error"
}

// note puts the usage so far on the ledger.
func (r *run) note() {
	u, _ := r.meter.Usage()
	cost, err := r.s.book.Cost(r.dep.Model, u, r.admit.StartedAt)
	if err != nil {
		cost = r.admit.Hold
	}
	r.ticket.Progress(&ledger.Progress{MessageID: r.meter.MessageID, Usage: u, Cost: cost})
}

// finish settles an answer whose last event has arrived and then releases that
// event and whatever the upstream still sends.
func (r *run) finish(ctx context.Context, sink Sink, last []byte, rest io.Reader) error {
	status := ledger.Completed
	if r.meter.ErrorType != "" {
		status = ledger.Interrupted
	}
	if err := r.settle(ctx, status, nil); err != nil {
		return ErrCut // the answer may not look complete
	}
	if err := sink.Write(last); err != nil {
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
	cause := context.Cause(ctx)
	if cause == nil {
		if len(rest) > 0 {
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
	var event bytes.Buffer
	if err := sse.Write(&event, "error", own.Body(r.call.RequestID)); err != nil {
		return errors.Join(ErrCut, err)
	}
	return sink.Write(event.Bytes())
}

// abandon settles a stream whose client has gone. The upstream call is
// cancelled at once; what was received is billed.
func (r *run) abandon(ctx context.Context, gone error) error {
	r.cancel(gone)
	return errors.Join(gone, r.settle(ctx, ledger.Aborted, nil))
}
