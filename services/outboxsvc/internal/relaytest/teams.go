package relaytest

import (
	"context"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// team is what the books know of a team at the sink.
type team struct {
	posted                money.NanoUSD
	based                 bool
	baseUsage, basePosted money.NanoUSD
	granted               money.NanoUSD // balance + posted, as last seen
	resetAt               time.Time
	due                   time.Time
	token, reported       int64
	until                 time.Time
	rebasedAt             time.Time
}

func (b *Book) team(id string) *team {
	if b.teams[id] == nil {
		b.teams[id] = &team{}
	}
	return b.teams[id]
}

// Nudge makes a team due.
func (b *Book) Nudge(_ context.Context, id, _ string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.team(id).due = b.Now()
	b.Nudges = append(b.Nudges, id)
	return nil
}

// LeaseTeams hands out teams that are due, or that are named.
func (b *Book) LeaseTeams(_ context.Context, _ string, teams []string, limit int, hold time.Duration) ([]relay.TeamLease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.Now()
	var ids []string
	for id, t := range b.teams {
		named := slices.Contains(teams, id) || len(teams) == 0 && !t.due.After(now)
		if named && !now.Before(t.until) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var leases []relay.TeamLease
	for _, id := range ids[:min(limit, len(ids))] {
		t := b.teams[id]
		t.token++
		t.until = now.Add(hold)
		l := relay.TeamLease{TeamID: id, Token: t.token}
		for _, c := range b.doubts(id) {
			l.Doubtful = append(l.Doubtful, c.Charge)
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// Release gives back a team that could not be read.
func (b *Book) Release(_ context.Context, l relay.TeamLease, after time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.team(l.TeamID)
	if t.token != l.Token || t.reported == l.Token {
		return fault.Errorf(fault.Conflict, "team %s is no longer leased to the caller", l.TeamID)
	}
	t.token++
	t.until = time.Time{}
	if due := b.Now().Add(after); due.After(t.due) {
		t.due = due
	}
	return nil
}

// Rebased says whether a team's books began anew since an instant.
func (b *Book) Rebased(_ context.Context, id string, since time.Time) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.team(id).rebasedAt.After(since), nil
}

// doubts are a team's charges that may be applied though they are not settled.
func (b *Book) doubts(id string) (list []*Charge) {
	for _, c := range b.charges {
		if c.TeamID == id && (c.open() || c.State == Dead) && (c.Unsure || c.lease > c.recorded && c.marked == c.lease) {
			list = append(list, c)
		}
	}
	return list
}

// Report compares what the sink says with the books, by billing's rules.
func (b *Book) Report(_ context.Context, r relay.Report) (relay.Finding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.team(r.TeamID)
	if t.token != r.Token || t.reported == r.Token {
		return relay.Finding{}, fault.Errorf(fault.Conflict, "team %s is no longer leased to the caller", r.TeamID)
	}
	t.reported, t.until, t.due = r.Token, time.Time{}, b.Now().Add(24*time.Hour)
	for _, c := range b.doubts(r.TeamID) {
		if slices.Contains(r.Found, c.ChargeID) && c.until.IsZero() {
			c.lapse()
			b.post(c, relay.ProofEvents)
		}
	}
	f := b.compare(t, r)
	f.TeamID = r.TeamID
	b.Findings = append(b.Findings, f)
	if len(b.doubts(r.TeamID)) > 0 {
		t.due = b.Now().Add(5 * time.Minute)
	}
	return f, nil
}

func (b *Book) compare(t *team, r relay.Report) relay.Finding {
	if r.NoBalance {
		return relay.Finding{Class: "no_balance", Fixed: !t.based}
	}
	usage, balance := credits(r.Sighting.Used), credits(r.Sighting.Signed)
	var late money.NanoUSD
	for _, c := range b.charges {
		if c.TeamID == r.TeamID && !c.settledAt.IsZero() && c.settledIn == t.token {
			late += c.applied()
		}
	}
	class := ""
	switch {
	case !t.based:
		class = "baseline"
	case r.Sighting.ResetAt.After(t.resetAt):
		class = "reset"
	}
	if class != "" {
		t.rebasedAt = b.Now()
		t.based, t.baseUsage, t.basePosted, t.resetAt, t.granted = true, usage, t.posted-late, r.Sighting.ResetAt, balance+t.posted-late
		return relay.Finding{Class: class, Fixed: true, Used: usage}
	}
	f := relay.Finding{Class: "none", Fixed: true, Used: usage, UsageDrift: usage - (t.baseUsage + t.posted - t.basePosted)}
	f.DriftNanoUSD = balance - (t.granted - t.posted)
	b.explain(t, r.TeamID, late, &f)
	if f.Fixed && f.DriftNanoUSD+f.UsageDrift != 0 {
		t.granted += f.DriftNanoUSD + f.UsageDrift
		if f.Class == "none" {
			f.Class = "grant"
		}
	}
	return f
}

// Accept takes the sink's side of a team's newest drift, as a human does who has
// looked into it: the books begin anew with the next report.
func (b *Book) Accept(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.team(id)
	t.based, t.due = false, b.Now()
}

// explain finds what makes the drift of usage.
func (b *Book) explain(t *team, id string, late money.NanoUSD, f *relay.Finding) {
	const tolerance = 10 * money.MicroCredit
	near := func(a, b money.NanoUSD) bool { return max(a-b, b-a) <= tolerance }
	if near(f.UsageDrift, 0) || near(f.UsageDrift, -late) {
		return
	}
	for _, c := range b.doubts(id) {
		if !near(f.UsageDrift, c.AmountNanoUSD) {
			continue
		}
		f.Class = "in_flight"
		if c.until.IsZero() && c.Unsure {
			f.Class = "doubt_applied"
			c.lapse()
			b.post(c, relay.ProofUsage)
		}
		return
	}
	f.Fixed, f.Class = false, "unexplained"
	var sum money.NanoUSD
	for _, c := range slices.Backward(b.charges) {
		if c.TeamID != id || c.settledAt.IsZero() {
			continue
		}
		sum += c.applied()
		switch {
		case near(-f.UsageDrift, c.applied()), near(-f.UsageDrift, sum):
			f.Class = "missing_charge"
			return
		case near(f.UsageDrift, c.applied()), near(f.UsageDrift, sum):
			f.Class = "double_charge"
			return
		}
	}
	if f.UsageDrift < 0 && f.UsageDrift+t.posted-t.basePosted < 0 {
		f.Class = "customer_reset"
	}
}

// credits reads an amount of credits; decimals beyond nano-dollars are cut.
func credits(text string) money.NanoUSD {
	for i := range text {
		if text[i] == '.' && len(text) > i+8 {
			text = text[:i+8]
			break
		}
	}
	n, err := money.ParseDecimal(text, 7)
	if err != nil {
		return 0
	}
	return money.NanoUSD(n)
}

// TopUp is a top-up with what became of it.
type TopUp struct {
	relay.TopUp
	Outcome relay.PurchaseOutcome // empty: it was not asked for yet
	Detail  string
	leased  bool
}

// LeaseTopUps hands out what is not settled for good.
func (b *Book) LeaseTopUps(_ context.Context, _ string, limit int, _ time.Duration) ([]relay.TopUpLease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var leases []relay.TopUpLease
	for _, t := range b.TopUps {
		again := t.Outcome == "" || t.Outcome == relay.NotDone || t.Outcome == relay.Unsure
		if !again || t.leased || len(leases) == limit {
			continue
		}
		t.leased = true
		t.Attempts++
		if t.FirstSentAt.IsZero() {
			t.FirstSentAt = b.Now()
		}
		leases = append(leases, relay.TopUpLease{TopUp: t.TopUp, Token: 1})
	}
	return leases, nil
}

// SettleTopUp records what became of one.
func (b *Book) SettleTopUp(_ context.Context, s relay.TopUpSettlement) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.TopUps {
		if t.TopUpID == s.TopUpID {
			t.Outcome, t.Detail, t.leased, t.Unsure = s.Outcome, s.Detail, false, s.Outcome == relay.Unsure
		}
	}
	return nil
}
