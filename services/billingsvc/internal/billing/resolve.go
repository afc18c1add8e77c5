package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// ProofByHand is the proof of a charge that somebody has settled.
const ProofByHand = "by_hand"

// Resolve settles by hand a charge that is dead or in doubt.
type Resolve struct {
	ChargeID string
	// Applied is what the sink took of it; nil: nothing, it was not applied. A
	// zero amount stands for all of it.
	Applied *money.NanoUSD
	// NewKey: a charge that was not applied is sent under another key.
	NewKey bool
	DryRun bool
	By
}

func (r Resolve) check() error {
	switch {
	case r.ChargeID == "":
		return fault.Errorf(fault.Invalid, "charge_id is empty")
	case r.Applied != nil && *r.Applied < 0:
		return fault.Errorf(fault.Invalid, "applied_nano_usd is negative")
	case r.Applied != nil && r.NewKey:
		return fault.Errorf(fault.Invalid, "a charge that was applied needs no new_key")
	}
	return checkReason(r.Reason)
}

// Apply returns the charge as it was resolved, and what that adds to the posted
// sum of the team. What its last lease left open is ended first, so that a late
// outcome of it changes nothing any more.
func (r Resolve) Apply(c Charge, now time.Time) (next Charge, posted money.NanoUSD, err error) {
	if c.LeaseUntil != nil && c.LeaseUntil.After(now) {
		return c, 0, fault.Errorf(fault.Conflict, "an attempt at charge %s is under way; try again", c.ChargeID)
	}
	next = c.Lapse()
	if next.State != Dead && next.State != Ambiguous {
		return c, 0, fault.Errorf(fault.Precondition, "charge %s is %s: there is nothing to resolve", c.ChargeID, next.State)
	}
	next.LastError = ""
	if r.Applied == nil {
		next = next.anew()
		next.State, next.DueAt = Pending, now
		if r.NewKey {
			next.KeyRound++
		}
		return next, 0, nil
	}
	next.Proof, next.SettledAt = ProofByHand, &now
	switch posted = *r.Applied; {
	case posted > c.AmountNanoUSD:
		return c, 0, fault.Errorf(fault.Invalid, "applied_nano_usd is more than the amount of charge %s", c.ChargeID)
	case posted == 0 || posted == c.AmountNanoUSD:
		next.State = Posted
		return next, c.AmountNanoUSD, nil
	}
	next.State, next.ShortfallNanoUSD = Short, c.AmountNanoUSD-posted
	return next, posted, nil
}

// Resolve settles a charge by hand and makes its team due for a reconciliation.
func (s *Service) Resolve(ctx context.Context, r Resolve) (Charge, error) {
	if err := r.check(); err != nil {
		return Charge{}, err
	}
	now := s.now()
	op := NewOperation("resolve", "", r.By, map[string]any{
		"charge_id": r.ChargeID, "applied_nano_usd": r.Applied, "new_key": r.NewKey,
	}, now)
	return s.store.Resolve(ctx, r, op, now)
}
