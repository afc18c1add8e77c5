// Package ledgertest cuts the ledger off from Postgres, for tests.
package ledgertest

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Cable is the way of a writer to Postgres, which a test can cut.
type Cable struct {
	ledger.Store
	Cut  atomic.Bool
	held atomic.Pointer[hold]
	hung atomic.Pointer[chan struct{}]
}

// hold is where the writer waits.
type hold struct {
	once     sync.Once
	is, free chan struct{}
}

// Hold has the writer wait in its next commit, and returns when it does.
func (c *Cable) Hold() (release func()) {
	h := &hold{is: make(chan struct{}), free: make(chan struct{})}
	c.held.Store(h)
	<-h.is
	return sync.OnceFunc(func() { c.held.Store(nil); close(h.free) })
}

var errCut = fault.Errorf(fault.Unavailable, "the cable is cut")

// Commit implements ledger.Store.
func (c *Cable) Commit(ctx context.Context, b *ledger.Batch) error {
	if h := c.held.Load(); h != nil {
		h.once.Do(func() { close(h.is) })
		<-h.free
	}
	if c.Cut.Load() {
		return errCut
	}
	return c.Store.Commit(ctx, b)
}

// Hang has Postgres take no batch, and say nothing when it is asked for the log, until
// it is released.
func (c *Cable) Hang() (release func()) {
	hung := make(chan struct{})
	c.hung.Store(&hung)
	c.Cut.Store(true)
	return sync.OnceFunc(func() {
		c.Cut.Store(false)
		c.hung.Store(nil)
		close(hung)
	})
}

// ReadLog implements ledger.Store.
func (c *Cable) ReadLog(ctx context.Context, logID, batch int64) (ledger.Open, error) {
	if hung := c.hung.Load(); hung != nil {
		select {
		case <-*hung:
		case <-ctx.Done():
			return ledger.Open{}, ctx.Err()
		}
	}
	if c.Cut.Load() {
		return ledger.Open{}, errCut
	}
	return c.Store.ReadLog(ctx, logID, batch)
}
