package watch

import (
	"context"
	"math"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Message is an event, or a heartbeat of which only Revision is set: the newest
// one that was sent before.
type Message struct {
	key.Event
	Heartbeat bool
	at        time.Time // when the read began that the heartbeat vouches for
}

// Why a watch ends although its caller is still there. All may connect again.
var (
	errSlow     = fault.Errorf(fault.Unavailable, "the watcher is too slow; connect again with the last revision it has seen")
	errReplaced = fault.Errorf(fault.Precondition, "the log of changes was replaced; forget all keys and watch from now on")
	errStopping = fault.Errorf(fault.Unavailable, "the service is shutting down; connect again")
)

// watcher is what the hub knows of one watch. The hub closes lost after it has
// set err.
type watcher struct {
	messages chan Message
	lost     chan struct{}
	err      error
}

// Request says where a watch starts and what ends it besides its context.
type Request struct {
	// After is the revision whose successors are sent; zero: from now on.
	After int64
	Stop  <-chan struct{}
}

// Watch calls send, one call at a time: first with a heartbeat that tells the
// revision the watch starts from, then with all later events in order and with
// heartbeats. It returns when ctx ends, Stop is closed, send fails or the
// watcher is too slow.
func (h *Hub) Watch(ctx context.Context, r Request, send func(Message) error) error {
	if r.After < 0 {
		return fault.Errorf(fault.Invalid, "after_revision cannot be negative")
	}
	// Join first: what is committed after the look into the log then comes
	// through the hub.
	w := h.join()
	defer h.leave(w)
	revision, err := h.catchUp(ctx, r.After, send)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.Stop:
			return errStopping
		case <-w.lost:
			return w.err
		case m := <-w.messages:
			switch {
			case m.Heartbeat && time.Since(m.at) > h.opt.Heartbeat:
				continue // it waited here and would vouch for the past
			case m.Heartbeat:
				m.Revision = revision
			case m.Revision <= revision:
				continue // sent by catchUp
			}
			if err := send(m); err != nil {
				return err
			}
			revision = m.Revision
		}
	}
}

// catchUp sends the first message and the events that are in the log already,
// and returns the last revision that was sent.
func (h *Hub) catchUp(ctx context.Context, after int64, send func(Message) error) (int64, error) {
	from := after
	if after == 0 {
		from = math.MaxInt64 // no events, only the newest revision
	}
	events, newest, err := h.log.Events(ctx, from, pageSize)
	if err != nil {
		return 0, err
	}
	if after == 0 {
		after = newest
	}
	if after > newest {
		return 0, fault.Errorf(fault.Precondition,
			"after_revision %d is newer than the newest revision %d: forget all keys and watch from 0", after, newest)
	}
	if gap(events, after, newest) {
		return 0, fault.Errorf(fault.Precondition,
			"the events after revision %d are not kept any more: forget all keys and watch from 0", after)
	}
	if err := send(Message{Event: key.Event{Revision: after}, Heartbeat: true}); err != nil {
		return 0, err
	}
	for {
		for _, e := range events {
			if err := send(Message{Event: e}); err != nil {
				return 0, err
			}
			after = e.Revision
		}
		if len(events) < pageSize {
			return after, nil
		}
		if events, _, err = h.log.Events(ctx, after, pageSize); err != nil {
			return 0, err
		}
	}
}

// gap says whether events are missing between a revision that was seen and what
// was read after it, of a log whose newest revision is known.
func gap(events []key.Event, seen, newest int64) bool {
	if len(events) == 0 {
		return newest > seen
	}
	return events[0].Revision != seen+1
}

func (h *Hub) join() *watcher {
	w := &watcher{messages: make(chan Message, buffered), lost: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[w] = struct{}{}
	h.current.Inc()
	return w
}

func (h *Hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
	h.current.Dec()
}

// fanOut gives the message to every watcher and drops those that have no room
// for it: one slow watcher must not hold up the others.
func (h *Hub) fanOut(m Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		select {
		case w.messages <- m:
		default:
			h.drop(w, errSlow)
		}
	}
}

func (h *Hub) dropAll(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		h.drop(w, err)
	}
}

// drop ends a watch. The caller holds mu.
func (h *Hub) drop(w *watcher, err error) {
	delete(h.watchers, w)
	h.lost.Inc()
	w.err = err
	close(w.lost)
}
