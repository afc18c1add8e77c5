package leash

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errWhy = errors.New("why")

func on(parent context.Context) *Leash {
	l := &Leash{}
	l.Begin(parent)
	return l
}

func isOver(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// expect holds what a context says against its cause; nil: it has not ended.
func expect(t *testing.T, name string, ctx context.Context, cause, err error) {
	t.Helper()
	if got := Cause(ctx); !errors.Is(got, cause) || cause == nil && got != nil {
		t.Errorf("%s: Cause = %v, want %v", name, got, cause)
	}
	if got := ctx.Err(); got != err || isOver(ctx) != (err != nil) { //nolint:errorlint // context says which they are
		t.Errorf("%s: Err = %v and done %t, want %v", name, got, isOver(ctx), err)
	}
}

func TestAnEndHasACause(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ given, cause, err error }{
		{errWhy, errWhy, context.Canceled},
		{nil, context.Canceled, context.Canceled},
		{context.DeadlineExceeded, context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		l, asked := on(t.Context()), on(t.Context())
		expect(t, "before", l, nil, nil)
		waits := asked.Done()
		for _, l := range []*Leash{l, asked} {
			l.End(tt.given)
			l.End(errors.New("later"))
			expect(t, "after", l, tt.cause, tt.err)
		}
		<-waits
	}
}

func TestItEndsWithItsParentAndNotTheOtherWay(t *testing.T) {
	t.Parallel()
	std, cancel := context.WithCancelCause(context.WithValue(t.Context(), errWhy, "value"))
	top := on(std)
	middle, aside := on(top), on(top)
	below, cancelBelow := context.WithCancel(on(middle))
	defer cancelBelow()
	if got := middle.Value(errWhy); got != "value" {
		t.Errorf("Value = %v", got)
	}
	aside.End(nil)
	if top.hooks != &middle.up || middle.up.next != nil {
		t.Error("one that has ended still waits for its parent")
	}
	expect(t, "its parent", top, nil, nil)
	expect(t, "another child", middle, nil, nil)
	cancel(errWhy)
	<-below.Done() // as package context calls it from a goroutine of its own
	expect(t, "a child of package context's", top, errWhy, context.Canceled)
	expect(t, "a child's child", middle, errWhy, context.Canceled)
	expect(t, "package context's", below, errWhy, context.Canceled)
	expect(t, "one that began too late", on(top), errWhy, context.Canceled)
	expect(t, "one that began too late at package context's", on(std), errWhy, context.Canceled)
	late, cancelLate := context.WithTimeout(top, time.Hour)
	defer cancelLate()
	<-late.Done()
}

func TestADeadlineIsItsParents(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour)
	std, cancel := context.WithDeadline(t.Context(), until)
	defer cancel()
	if got, ok := on(std).Deadline(); !ok || !got.Equal(until) {
		t.Errorf("Deadline = %v, %t", got, ok)
	}
}

// TestHooks puts three and takes some back.
func TestHooks(t *testing.T) {
	t.Parallel()
	for n := range 16 {
		taken, order := n%8, []int{0, 1, 2}
		if n >= 8 {
			slices.Reverse(order)
		}
		l := on(t.Context())
		var hooks [3]Hook
		var called [3]int
		for i := range hooks {
			hooks[i].After(l, Func(func() { called[i]++ }))
		}
		for _, i := range order {
			if taken&(1<<i) != 0 && !hooks[i].Stop() {
				t.Errorf("%b: hook %d was not taken back", taken, i)
			}
		}
		l.End(nil)
		l.End(nil)
		for i := range hooks {
			if want := 1 - taken>>i&1; called[i] != want {
				t.Errorf("%b: hook %d was called %d times, want %d", taken, i, called[i], want)
			}
			if hooks[i].Stop() {
				t.Errorf("%b: hook %d could be taken back after the end", taken, i)
			}
		}
	}
}

func TestAHookThatComesLateIsCalledAtOnce(t *testing.T) {
	t.Parallel()
	l := on(t.Context())
	l.End(nil)
	called := false
	var h, never Hook
	h.After(l, Func(func() { called = true }))
	if !called || h.Stop() || never.Stop() {
		t.Error("it was not called, or taken back")
	}
	held, ran := make(chan bool), make(chan bool)
	stop := l.AfterFunc(func() { <-held; close(ran) }) // would wait for ever in this goroutine
	close(held)
	if <-ran; stop() {
		t.Error("package context's was taken back")
	}
}

func TestAHookOfPackageContexts(t *testing.T) {
	t.Parallel()
	std, cancel := context.WithCancel(t.Context())
	called := make(chan bool)
	var h, taken, forever Hook
	h.After(std, Func(func() { close(called) }))
	taken.After(std, Func(func() { t.Error("a hook that was taken back was called") }))
	forever.After(context.Background(), Func(func() { t.Error("the background has ended") }))
	if !taken.Stop() {
		t.Error("it was not taken back")
	}
	cancel()
	<-called
	if h.Stop() {
		t.Error("it was taken back after it was called")
	}
}

// TestEachHookOnce has hooks taken back while their leash ends.
func TestEachHookOnce(t *testing.T) {
	t.Parallel()
	for range 200 {
		top := on(t.Context())
		l := on(top)
		var called, stopped atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				var h Hook
				h.After(l, Func(func() { called.Add(1) }))
				if h.Stop() {
					stopped.Add(1)
				}
			})
		}
		all.Go(func() { top.End(errWhy) })
		all.Go(func() { l.End(errWhy) })
		all.Wait()
		if called.Load()+stopped.Load() != 8 {
			t.Fatalf("%d were called and %d taken back of 8", called.Load(), stopped.Load())
		}
		expect(t, "the end", l, errWhy, context.Canceled)
	}
}
