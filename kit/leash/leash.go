// Package leash has contexts that are a part of what they are the context of, for the
// few that every request has. Those of package context are objects of their own, with
// a function, a channel and a map each, which at one event a request costs more than
// the event.
package leash

import (
	"context"
	"sync"
	"time"
)

// Leash is a context that ends once, with a cause. Begin it before anything else.
// context.Cause does not see the cause; Cause does.
type Leash struct {
	parent context.Context //nolint:containedctx // it is one
	up     Hook            // in the parent

	mu    sync.Mutex
	cause error         // nil: it goes on
	done  chan struct{} // nil: nobody has asked
	hooks *Hook         // what is called at the end
}

var _ context.Context = (*Leash)(nil)

// Begin makes it a context that ends with its parent, if not before, and returns it.
func (l *Leash) Begin(parent context.Context) context.Context {
	l.parent = parent
	if parent.Err() != nil {
		l.follow()
	} else {
		l.up.After(parent, (*follower)(l))
	}
	return l
}

func (l *Leash) follow() { l.end(Cause(l.parent)) }

// follower is a leash whose parent has ended.
type follower Leash

// Stop implements Stopper.
func (f *follower) Stop() { (*Leash)(f).follow() }

// End ends it, unless it has ended, and calls what waits for that before it returns.
// No cause means context.Canceled.
func (l *Leash) End(cause error) {
	l.up.Stop()
	l.end(cause)
}

func (l *Leash) end(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	l.mu.Lock()
	if l.cause != nil {
		l.mu.Unlock()
		return
	}
	l.cause = cause
	if l.done != nil {
		close(l.done)
	}
	due := l.hooks
	l.hooks = nil
	for h := due; h != nil; h = h.next {
		h.of = nil
	}
	l.mu.Unlock()
	for h := due; h != nil; h = h.next {
		h.do.Stop()
	}
}

// Cause is why it has ended; nil: it has not.
func (l *Leash) Cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Cause is why a context has ended, whichever kind it is of; nil: it has not.
func Cause(ctx context.Context) error {
	if l, ok := ctx.(*Leash); ok {
		return l.Cause()
	}
	return context.Cause(ctx)
}

// Err implements context.Context.
func (l *Leash) Err() error {
	cause := l.Cause()
	if cause == nil || cause == context.DeadlineExceeded { //nolint:errorlint // as package context has it, which never wraps it
		return cause
	}
	return context.Canceled
}

// Done implements context.Context.
func (l *Leash) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		if l.done = make(chan struct{}); l.cause != nil {
			close(l.done)
		}
	}
	return l.done
}

// Deadline implements context.Context.
func (l *Leash) Deadline() (time.Time, bool) { return l.parent.Deadline() }

// Value implements context.Context.
func (l *Leash) Value(key any) any { return l.parent.Value(key) }

// AfterFunc is what package context looks for before it starts a goroutine that waits
// for a context of another kind.
func (l *Leash) AfterFunc(do func()) (stop func() bool) {
	h := &Hook{do: Func(do)}
	if !l.add(h) {
		go do() // the caller holds a lock that it takes
	}
	return h.Stop
}

// Stopper is told of the end of a context. A method of something that is there costs no
// object, as a function that is made of it does.
type Stopper interface{ Stop() }

// Func is a Stopper that is a function.
type Func func()

// Stop implements Stopper.
func (f Func) Stop() { f() }

// Hook is a call that waits for the end of a context. Like the context it is a part of
// something, and is used once.
type Hook struct {
	do         Stopper
	next, prev *Hook       // in the list of the leash
	at         *Leash      // where it was put; nil: it is a context of another kind
	of         *Leash      // where it waits; nil: it does not. It belongs to at's mu
	off        func() bool // of a context of another kind
}

// After has do.Stop called when ctx ends, or at once if it has. It runs in the goroutine
// that ends ctx, which may hold locks: it must not wait.
func (h *Hook) After(ctx context.Context, do Stopper) {
	h.do = do
	switch l, ok := ctx.(*Leash); {
	case ok && !l.add(h):
		do.Stop()
	case !ok && ctx.Done() != nil:
		h.off = context.AfterFunc(ctx, do.Stop)
	}
}

// Stop takes it back. False: it was called, or is being called, or never put.
func (h *Hook) Stop() bool {
	if h.at == nil {
		return h.off != nil && h.off()
	}
	h.at.mu.Lock()
	defer h.at.mu.Unlock()
	if h.of == nil {
		return false
	}
	h.of = nil
	if h.prev == nil {
		h.at.hooks = h.next
	} else {
		h.prev.next = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	}
	return true
}

// add puts a hook first in the list. False: it has ended.
func (l *Leash) add(h *Hook) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return false
	}
	h.at, h.of = l, l
	if h.next = l.hooks; h.next != nil {
		h.next.prev = h
	}
	l.hooks = h
	return true
}
