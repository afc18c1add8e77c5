package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Correction is what pricing rows again has changed.
type Correction struct {
	Rows, Corrected int64
	Difference      money.NanoUSD
}

// Corrector prices rows again.
type Corrector struct {
	rows   func(ctx context.Context, f Filter) ([]Row, error)
	find   func(ctx context.Context, requestIDs []string) (map[string]Found, error)
	adjust func(ctx context.Context, s *Settlement) error
	now    func() time.Time
}

// NewCorrector makes a corrector over a store's reads and a writer.
func NewCorrector(rows func(context.Context, Filter) ([]Row, error), find func(context.Context, []string) (map[string]Found, error), w *Writer) *Corrector {
	return &Corrector{rows: rows, find: find, adjust: w.Adjust, now: time.Now}
}

// correctionPage is how many rows are looked at in one go.
const correctionPage = 500

// Correct prices the rows that a filter picks by `cost`, and adds a row with the
// difference for each whose sum is another. Estimates of what could not be read
// stay. A dry run only says what would change.
func (c *Corrector) Correct(ctx context.Context, f Filter, cost func(Row) (money.NanoUSD, error), dryRun bool) (Correction, error) {
	var sum Correction
	for f.Limit = correctionPage; ; {
		rows, err := c.rows(ctx, f)
		if err != nil {
			return sum, err
		}
		if err := c.page(ctx, rows, cost, dryRun, &sum); err != nil {
			return sum, err
		}
		if len(rows) < f.Limit {
			return sum, nil
		}
		f.After = &rows[len(rows)-1]
	}
}

func (c *Corrector) page(ctx context.Context, rows []Row, cost func(Row) (money.NanoUSD, error), dryRun bool, sum *Correction) error {
	ids := make([]string, 0, len(rows))
	for _, r := range rows {
		ids = append(ids, r.RequestID)
	}
	found, err := c.find(ctx, ids)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Adjusts != "" || r.Breakdown["unknown"] != 0 {
			continue
		}
		sum.Rows++
		s := r.Settlement
		have := found[r.RequestID]
		s.Usage = have.Usage
		s.Usage.Speed, s.Usage.InferenceGeo, s.Usage.ServiceTier = r.Usage.Speed, r.Usage.InferenceGeo, r.Usage.ServiceTier
		right, err := cost(Row{LogID: r.LogID, Seq: r.Seq, Settlement: s})
		if err != nil {
			return fmt.Errorf("price %s again: %w", r.RequestID, err)
		}
		s.Cost = right
		a := adjustment(&s, have, c.now())
		if a == nil {
			continue
		}
		sum.Corrected++
		sum.Difference += a.Cost
		if dryRun {
			continue
		}
		if err := c.adjust(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// Adjust puts a correction on the ledger and returns when it is committed.
func (w *Writer) Adjust(ctx context.Context, s *Settlement) error {
	t := &Ticket{w: w, logID: correctionLog, result: make(chan result, 1)}
	return t.put(ctx, s)
}

// correctionLog is the log of corrections on their way: nobody has it, so that
// they are written by what the ledger has of them.
const correctionLog = -2
