package store

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestAPriceCorrectionAddsRows prices twelve rows again, twice: the first time
// each gets a row with the difference, the second time there is none.
func TestAPriceCorrectionAddsRows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	defer stop()
	begin := time.Now().Add(-time.Minute)
	for range 12 {
		ticket, r := admit(t, w, "k", 100)
		if err := ticket.Settle(t.Context(), settlement(r, 7)); err != nil {
			t.Fatal(err)
		}
	}
	c := ledger.NewCorrector(s.Rows, s.Find, w)
	correct := func(cost money.NanoUSD, dryRun bool) ledger.Correction {
		t.Helper()
		f := ledger.Filter{Model: "m", EndedAfter: begin, EndedBefore: time.Now()}
		sum, err := c.Correct(t.Context(), f, func(ledger.Row) (money.NanoUSD, error) { return cost, nil }, dryRun)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	for i, step := range []struct {
		cost    money.NanoUSD
		dryRun  bool
		changed int64
		sum     money.NanoUSD
		total   money.NanoUSD
	}{
		{10, true, 12, 36, 84}, {10, false, 12, 36, 120}, {10, false, 0, 0, 120}, {9, false, 12, -12, 108},
	} {
		got := correct(step.cost, step.dryRun)
		if got.Rows != 12 || got.Corrected != step.changed || got.Difference != step.sum {
			t.Errorf("step %d: %+v, want %d rows by %d", i, got, step.changed, step.sum)
		}
		if a := auditClean(t, s); a.Cost != step.total {
			t.Errorf("step %d: the ledger says %d, want %d", i, a.Cost, step.total)
		}
	}
	sum, err := s.Summary(t.Context(), ledger.AccountID{Kind: ledger.KindKey, ID: "k"})
	if err != nil || sum.Spent != 108 || sum.Held != 0 {
		t.Errorf("key %+v, %v", sum, err)
	}
}
