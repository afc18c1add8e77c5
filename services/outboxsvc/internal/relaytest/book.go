// Package relaytest is a small ledger with billing's rules for charges, leases
// and reconciliations, on a clock of its own, for proofs that need days to pass
// in a moment. It keeps everything in memory.
package relaytest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// State is where a charge stands.
type State string

// The states.
const (
	Pending   State = "pending"
	Posted    State = "posted"
	Short     State = "short"
	Ambiguous State = "ambiguous"
	Dead      State = "dead"
)

// Charge is a charge with its history.
type Charge struct {
	relay.Charge
	State     State
	Proof     string
	Shortfall money.NanoUSD
	DueAt     time.Time
	Sends     int // marked as sent

	lease, recorded, marked int64
	until                   time.Time // of the lease; zero: not leased
	settledIn               int64
	settledAt               time.Time
}

func (c *Charge) open() bool { return c.State == Pending || c.State == Ambiguous }

// applied is what the sink said that it took.
func (c *Charge) applied() money.NanoUSD { return c.AmountNanoUSD - c.Shortfall }

// Book implements relay.Billing. Its methods may be called at the same time.
type Book struct {
	Now func() time.Time

	mu       sync.Mutex
	charges  []*Charge
	teams    map[string]*team
	TopUps   []*TopUp
	Findings []relay.Finding
	Nudges   []string
	paused   map[string]bool
}

var _ relay.Billing = (*Book)(nil)

// New makes an empty book.
func New(now func() time.Time) *Book {
	return &Book{Now: now, teams: map[string]*team{}, paused: map[string]bool{}}
}

// Add freezes a charge, which is due at once.
func (b *Book) Add(id, teamID string, seq int64, amount money.NanoUSD) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charges = append(b.charges, &Charge{
		Charge: relay.Charge{ChargeID: id, TeamID: teamID, Seq: seq, AmountNanoUSD: amount, EventCount: 1, KeyRound: 1, FrozenAt: b.Now()},
		State:  Pending, DueAt: b.Now(),
	})
	b.team(teamID)
}

// Charges returns copies of all charges.
func (b *Book) Charges() []Charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Charge, len(b.charges))
	for i, c := range b.charges {
		out[i] = *c
	}
	return out
}

// Charge returns a copy of one.
func (b *Book) Charge(id string) Charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.find(id); c != nil {
		return *c
	}
	return Charge{}
}

// Change changes a charge, as its history needs.
func (b *Book) Change(id string, change func(*Charge)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b.find(id))
}

func (b *Book) find(id string) *Charge {
	for _, c := range b.charges {
		if c.ChargeID == id {
			return c
		}
	}
	return nil
}

// Lease hands out each team's oldest open charge that is due, the longest first.
func (b *Book) Lease(_ context.Context, _ string, limit int, hold time.Duration) ([]relay.Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, busy := b.Now(), map[string]bool{}
	for _, c := range b.charges {
		if !c.until.IsZero() && now.Before(c.until) {
			busy[c.TeamID] = true
		}
	}
	var due []*Charge
	for _, c := range b.charges {
		if !c.open() || busy[c.TeamID] {
			continue
		}
		busy[c.TeamID] = true // whatever its state, no younger one may pass it
		if !c.DueAt.After(now) && !now.Before(b.team(c.TeamID).until) && !b.paused[c.TeamID] && !b.paused[""] {
			due = append(due, c)
		}
	}
	slices.SortStableFunc(due, func(x, y *Charge) int { return x.DueAt.Compare(y.DueAt) })
	var leases []relay.Lease
	for _, c := range due[:min(limit, len(due))] {
		c.lapse()
		c.Attempts++
		c.lease++
		c.until = now.Add(hold)
		leases = append(leases, relay.Lease{Charge: c.Charge, Token: c.lease})
	}
	return leases, nil
}

// lapse ends a lease that nobody settled: if it was sent, it may be applied.
func (c *Charge) lapse() {
	if c.lease <= c.recorded {
		return
	}
	c.Unsure = c.Unsure || c.marked == c.lease
	c.end()
	c.State = c.waiting()
}

// anew makes the charge one that was never sent.
func (c *Charge) anew() { c.Unsure, c.FirstSentAt, c.Via = false, time.Time{}, relay.Via{} }

func (c *Charge) end() { c.recorded, c.until = c.lease, time.Time{} }

func (c *Charge) waiting() State {
	if c.Unsure {
		return Ambiguous
	}
	return Pending
}

// MarkSent notes that a leased charge is about to be sent, and under what.
func (b *Book) MarkSent(_ context.Context, id string, token int64, via relay.Via) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.find(id)
	if c == nil || c.lease != token || c.recorded == token || c.until.IsZero() {
		return fault.Errorf(fault.Conflict, "charge %s is no longer leased to the caller", id)
	}
	if c.FirstSentAt.IsZero() {
		c.FirstSentAt = b.Now().Add(time.Millisecond) // after what was read before it was sent
	}
	c.marked = token
	if !c.Unsure || c.Via.Device == "" {
		c.Via = via
	}
	c.Sends++
	return nil
}

// Settle records the outcome of a lease, as billing does.
func (b *Book) Settle(_ context.Context, s relay.Settlement) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.find(s.ChargeID)
	switch {
	case c == nil:
		return fault.Errorf(fault.NotFound, "charge %s not found", s.ChargeID)
	case c.lease != s.Token || c.recorded == s.Token:
		return fault.Errorf(fault.Conflict, "charge %s is no longer leased to the caller", s.ChargeID)
	case s.NotSent && c.marked == c.lease:
		return fault.Errorf(fault.Invalid, "charge %s was marked as sent under this lease", s.ChargeID)
	case (s.Outcome == relay.Applied || s.Outcome == relay.PartlyApplied) && s.Proof == "":
		return fault.Errorf(fault.Invalid, "outcome %s needs a proof", s.Outcome)
	}
	c.end()
	c.LastError, c.DueAt = s.Error, b.Now().Add(s.RetryAfter)
	if s.KeyUsedUp {
		c.KeyRound++
	}
	switch s.Outcome {
	case relay.Applied:
		b.post(c, s.Proof)
	case relay.PartlyApplied:
		c.Shortfall = c.AmountNanoUSD - s.AppliedNanoUSD
		b.post(c, s.Proof)
		c.State = Short
	case relay.NotApplied:
		c.State = c.waiting()
	case relay.Unknown:
		c.Unsure = c.Unsure || !s.NotSent
		c.State = c.waiting()
	case relay.Refused:
		c.State = Dead
	case relay.NeverApplied:
		c.anew()
		c.State = Pending
	}
	return nil
}

// post settles a charge as applied.
func (b *Book) post(c *Charge, proof string) {
	t := b.team(c.TeamID)
	c.State, c.Proof, c.settledIn, c.settledAt = Posted, proof, t.token, b.Now()
	t.posted += c.applied()
}

// InDoubt lists the charges that wait and may have been applied.
func (b *Book) InDoubt(context.Context) ([]relay.Charge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var doubt []relay.Charge
	for _, c := range b.charges {
		if c.State == Ambiguous {
			doubt = append(doubt, c.Charge)
		}
	}
	return doubt, nil
}

// Dead lists dead charges.
func (b *Book) Dead(_ context.Context, q relay.DeadQuery) ([]relay.DeadCharge, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var dead []relay.DeadCharge
	for _, c := range b.charges {
		if c.State == Dead && (q.TeamID == "" || q.TeamID == c.TeamID) {
			dead = append(dead, relay.DeadCharge{ChargeID: c.ChargeID, TeamID: c.TeamID, AmountNanoUSD: c.AmountNanoUSD, Reason: c.LastError, FrozenAt: c.FrozenAt})
		}
	}
	return dead, "", nil
}

// Requeue makes dead charges due again.
func (b *Book) Requeue(_ context.Context, r relay.Requeue) (relay.Requeued, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var done relay.Requeued
	for _, c := range b.charges {
		chosen := slices.Contains(r.ChargeIDs, c.ChargeID) || len(r.ChargeIDs) == 0 && r.TeamID == c.TeamID
		if c.State != Dead || !chosen {
			continue
		}
		done.ChargeIDs = append(done.ChargeIDs, c.ChargeID)
		if !r.DryRun {
			if r.Verified {
				c.anew()
				c.LastError = ""
			}
			c.State, c.DueAt = c.waiting(), b.Now()
		}
	}
	return done, nil
}

// Resolve settles a charge by hand.
func (b *Book) Resolve(_ context.Context, r relay.Resolve) (relay.Resolved, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.find(r.ChargeID)
	if c == nil || !c.until.IsZero() && b.Now().Before(c.until) || c.State != Dead && c.State != Ambiguous {
		return relay.Resolved{}, fault.Errorf(fault.Precondition, "charge %s cannot be resolved", r.ChargeID)
	}
	if r.DryRun {
		return relay.Resolved{ChargeID: c.ChargeID, TeamID: c.TeamID, AmountNanoUSD: c.AmountNanoUSD}, nil
	}
	c.lapse()
	c.LastError = ""
	switch {
	case !r.Applied:
		c.anew()
		c.State, c.DueAt = Pending, b.Now()
		if r.NewKey {
			c.KeyRound++
		}
	default:
		if r.AppliedNanoUSD > 0 {
			c.Shortfall = c.AmountNanoUSD - r.AppliedNanoUSD
		}
		b.post(c, "by_hand")
	}
	b.team(c.TeamID).due = b.Now()
	return relay.Resolved{ChargeID: c.ChargeID, TeamID: c.TeamID, State: string(c.State), AmountNanoUSD: c.AmountNanoUSD, Shortfall: c.Shortfall}, nil
}

// Pause stops a team's charges, or all.
func (b *Book) Pause(_ context.Context, p relay.Pause) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused[p.TeamID] = true
	return nil
}

// Resume ends a pause.
func (b *Book) Resume(_ context.Context, p relay.Pause) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.paused[p.TeamID]
	delete(b.paused, p.TeamID)
	return was, nil
}
