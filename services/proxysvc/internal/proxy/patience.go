package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/leash"
)

// patience ends what gives no sign for too long, by one timer for all of it: one each is
// two objects for every request.
type patience struct {
	most  time.Duration // and up to a quarter more
	cause error

	mu    sync.Mutex
	first *waiting
	timer *time.Timer // nil: nothing has ever waited
	runs  bool        // the timer does
}

// looks is how often a silence is looked at before it is long enough.
const looks = 4

// waiting is a part of what waits. The zero value is ready, for once.
type waiting struct {
	life  leash.Leash  // ends with it
	signs atomic.Int64 // how many there were

	// These belong to the patience's mu.
	next, prev *waiting
	in         bool
	seen       int64 // signs at the last look
	silent     int   // looks that found no new one
}

// begin begins a context that ends with its parent, or when w gives no sign for too long.
func (p *patience) begin(parent context.Context, w *waiting) context.Context {
	ctx := w.life.Begin(parent)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.in, w.seen = true, -1 // the first look finds that it has begun
	if w.next = p.first; w.next != nil {
		w.next.prev = w
	}
	p.first = w
	switch {
	case p.runs:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.most/looks, p.look)
	default:
		p.timer.Reset(p.most / looks)
	}
	p.runs = true
	return ctx
}

// end is called when w has to wait no longer. It does not end its context.
func (p *patience) end(w *waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(w)
}

// remove needs mu.
func (p *patience) remove(w *waiting) {
	if !w.in {
		return
	}
	w.in = false
	if w.prev == nil {
		p.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// look ends what has been silent for long enough.
func (p *patience) look() {
	for _, w := range p.over() {
		w.life.End(p.cause) // it may close connections: others need not wait for that
	}
}

func (p *patience) over() (over []*waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := p.first; w != nil; {
		next := w.next
		if signs := w.signs.Load(); signs != w.seen {
			w.seen, w.silent = signs, 0
		} else if w.silent++; w.silent == looks {
			p.remove(w)
			over = append(over, w)
		}
		w = next
	}
	if p.runs = p.first != nil; p.runs {
		p.timer.Reset(p.most / looks)
	}
	return over
}
