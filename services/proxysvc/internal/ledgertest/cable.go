// Package ledgertest cuts the ledger off from Postgres, for tests.
package ledgertest

import (
	"context"
	"sync/atomic"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Cable is the way of a writer to Postgres, which a test can cut.
type Cable struct {
	ledger.Store
	Cut atomic.Bool
}

var errCut = fault.Errorf(fault.Unavailable, "the cable is cut")

// Commit implements ledger.Store.
func (c *Cable) Commit(ctx context.Context, b *ledger.Batch) error {
	if c.Cut.Load() {
		return errCut
	}
	return c.Store.Commit(ctx, b)
}

// ReadLog implements ledger.Store.
func (c *Cable) ReadLog(ctx context.Context, logID, batch int64) (ledger.Open, error) {
	if c.Cut.Load() {
		return ledger.Open{}, errCut
	}
	return c.Store.ReadLog(ctx, logID, batch)
}
