package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Quarantined is a row that could not be billed, and why.
type Quarantined struct {
	Row    Row
	Reason string
}

// QuarantineEntry is a row in quarantine.
type QuarantineEntry struct {
	Quarantined
	CreatedAt time.Time
	ReratedAt *time.Time // when it was billed after all; nil: it waits
}

// QuarantineQuery filters the quarantine, in order of log and seq.
type QuarantineQuery struct {
	TeamID         string // empty: all
	IncludeRerated bool
	After          Place // only rows after this one
	Limit          int
}

// Quarantine is where rows wait that cannot be billed.
type Quarantine interface {
	Quarantined(ctx context.Context, q QuarantineQuery) ([]QuarantineEntry, error)
	// QuarantinedAt returns those of the places that wait.
	QuarantinedAt(ctx context.Context, places []Place) ([]QuarantineEntry, error)
	// Rerate bills the events of rows that wait and marks those rows, in one
	// transaction. A row that does not wait any more, or whose key is taken by
	// another row meanwhile, is left out of what it returns.
	Rerate(ctx context.Context, rules Rules, events []Event, op Operation, now time.Time) ([]Event, error)
}

// Rerating asks for rows in quarantine to be billed.
type Rerating struct {
	Places []Place
	TeamID string         // for rows without one; empty: they stay
	Cost   *money.NanoUSD // instead of the row's; nil: the row's
	DryRun bool
	By
}

// Rerated is what came of it.
type Rerated struct {
	Events []Event
	Still  []QuarantineEntry // with the reason that holds now
}

// Quarantined lists the quarantine.
func (s *Service) Quarantined(ctx context.Context, q QuarantineQuery) ([]QuarantineEntry, error) {
	return s.store.Quarantined(ctx, q)
}

// Rerate bills rows in quarantine under the keys and the markups that they
// would have had.
func (s *Service) Rerate(ctx context.Context, r Rerating) (Rerated, error) {
	if len(r.Places) == 0 || len(r.Places) > 1000 {
		return Rerated{}, fault.Errorf(fault.Invalid, "places has %d places, not 1 to 1000", len(r.Places))
	}
	if err := checkReason(r.Reason); err != nil {
		return Rerated{}, err
	}
	entries, err := s.store.QuarantinedAt(ctx, r.Places)
	if err != nil {
		return Rerated{}, err
	}
	rows := make([]Row, len(entries))
	for i, q := range entries {
		rows[i] = r.row(q.Row)
	}
	t, err := s.tariffOf(ctx, rows)
	if err != nil {
		return Rerated{}, err
	}
	now := s.now()
	var out Rerated
	waiting := map[Place]QuarantineEntry{}
	for i, row := range rows {
		e, reason := t.at(row.TeamID, row.EndedAt).event(row, now)
		if reason != "" {
			entries[i].Reason = reason
			out.Still = append(out.Still, entries[i])
			continue
		}
		waiting[Place{row.LogID, row.Seq}] = entries[i]
		out.Events = append(out.Events, e)
	}
	if r.DryRun || len(out.Events) == 0 {
		return out, nil
	}
	op := NewOperation("rerate", r.TeamID, r.By, map[string]any{"places": r.Places, "cost_nano_usd": r.Cost}, now)
	out.Events, err = s.store.Rerate(ctx, s.rules, out.Events, op, now)
	if err != nil {
		return Rerated{}, err
	}
	for _, e := range out.Events {
		delete(waiting, Place{e.LogID, e.Seq})
	}
	for _, q := range waiting {
		q.Reason = "request was billed already"
		out.Still = append(out.Still, q)
	}
	s.wake()
	return out, nil
}

// row is the row with what was put right.
func (r Rerating) row(row Row) Row {
	if row.TeamID == "" {
		row.TeamID = r.TeamID
	}
	if r.Cost != nil {
		row.CostNanoUSD = *r.Cost
	}
	return row
}
