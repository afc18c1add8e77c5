package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// verifyAfter is how long after its first attempt a charge that may have been
// applied can be sent again without being verified: the sink knows its key for
// 24 hours.
const verifyAfter = 20 * time.Hour

// ChargeFilter chooses among dead charges. All conditions must hold.
type ChargeFilter struct {
	TeamID        string
	ErrorContains string
	FrozenAfter   *time.Time
	FrozenBefore  *time.Time
	Max           int
}

// Requeue asks for dead charges to be made due again.
type Requeue struct {
	ChargeIDs []string // these; empty: what the filter says
	Filter    ChargeFilter
	DryRun    bool
	By
	// VerifiedNotApplied: somebody has made sure that none was applied.
	VerifiedNotApplied bool
}

// Requeued is what came of it.
type Requeued struct {
	Charges    []Charge // due again, or would be
	Unverified []string // ids of those that need to be verified
}

func (r Requeue) check() error {
	f := r.Filter
	byFilter := f.TeamID != "" || f.ErrorContains != "" || f.FrozenAfter != nil || f.FrozenBefore != nil
	switch {
	case len(r.ChargeIDs) > 1000:
		return fault.Errorf(fault.Invalid, "charge_ids has %d ids, not 1 to 1000", len(r.ChargeIDs))
	case len(r.ChargeIDs) == 0 && !byFilter:
		return fault.Errorf(fault.Invalid, "charge_ids and filter are empty")
	case len(r.ChargeIDs) > 0 && byFilter:
		return fault.Errorf(fault.Invalid, "charge_ids and filter do not go together")
	case f.Max < 0 || f.Max > 1000:
		return fault.Errorf(fault.Invalid, "max_charges is not from 1 to 1000")
	case (byFilter || r.VerifiedNotApplied) && !r.DryRun:
		return checkReason(r.Reason)
	}
	return nil
}

// Apply returns a dead charge made due, or says that it must be verified.
func (r Requeue) Apply(c Charge, now time.Time) (next Charge, ok bool) {
	if r.VerifiedNotApplied {
		c = c.anew()
		c.LastError = "" // else what it says of the doubt holds on
	}
	if c.Unsure && c.FirstSentAt != nil && now.Sub(*c.FirstSentAt) > verifyAfter {
		return c, false
	}
	c.State, c.DueAt = waiting(c.Unsure), now
	return c, true
}

// Requeue makes dead charges due now and returns them. Ids of others are left
// alone.
func (s *Service) Requeue(ctx context.Context, r Requeue) (Requeued, error) {
	if err := r.check(); err != nil {
		return Requeued{}, err
	}
	if r.Filter.Max == 0 {
		r.Filter.Max = 1000
	}
	now := s.now()
	op := NewOperation("requeue", r.Filter.TeamID, r.By, map[string]any{
		"charge_ids": r.ChargeIDs, "filter": r.Filter, "verified_not_applied": r.VerifiedNotApplied,
	}, now)
	return s.store.Requeue(ctx, r, op, now)
}
