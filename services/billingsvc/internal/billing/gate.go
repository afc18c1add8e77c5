package billing

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// GateState is where a team stands.
type GateState string

// The states of a gate. Exhausted and suspended teams are refused.
const (
	Unconfigured GateState = "unconfigured" // nobody said what it may use: let through
	Trial        GateState = "trial"        // uses trial credits
	Active       GateState = "active"       // has credits
	Grace        GateState = "grace"        // has used them up, and a little time is left
	Exhausted    GateState = "exhausted"    // has none
	Suspended    GateState = "suspended"    // was stopped by somebody
)

// Basis is what a team's credits stand on.
type Basis string

// The bases. A plan is whatever balance the sink reports.
const (
	NoBasis    Basis = ""
	TrialBasis Basis = "trial"
	PlanBasis  Basis = "plan"
)

// Status is what the proxies are told of a gate.
type Status string

// The statuses.
const (
	StatusActive    Status = "active"
	StatusExhausted Status = "exhausted"
	StatusSuspended Status = "suspended"
)

// Gate is whether a team's requests are let through, and why.
type Gate struct {
	State      GateState  `db:"gate_state"`
	Reason     string     `db:"gate_reason"` // what users of a closed gate read
	Basis      Basis      `db:"gate_basis"`
	Unlimited  bool       `db:"gate_unlimited"`
	ChangedAt  *time.Time `db:"gate_changed_at"` // nil: never
	GraceUntil *time.Time `db:"grace_until"`     // set in grace only
	// Generation counts the changes that keysvc has to hear of; Announced is
	// the newest that it has acknowledged.
	Generation    int64  `db:"gate_generation"`
	Announced     int64  `db:"announced_generation"`
	AnnounceError string `db:"announce_error"`
}

// Status is what the proxies are told.
func (g Gate) Status() Status {
	switch g.State {
	case Exhausted:
		return StatusExhausted
	case Suspended:
		return StatusSuspended
	case Unconfigured, Trial, Active, Grace:
	}
	return StatusActive
}

// Open says whether requests are let through.
func (g Gate) Open() bool { return g.Status() == StatusActive }

// Policy is what the gate's rules leave to the configuration.
type Policy struct {
	// TrialCredits are given to a team that is billed for the first time. Zero:
	// none, such teams stay unconfigured.
	TrialCredits money.NanoUSD
	// A team with a plan that runs out goes on for GracePeriod, and no further
	// than Overdraft below zero. If either is zero there is no grace.
	GracePeriod time.Duration
	Overdraft   money.NanoUSD
}

// Cause is why a gate is looked at.
type Cause string

// The causes. Spend, Report and Elapsed leave the decision to the balance.
const (
	CauseSpend     Cause = "spend"
	CauseReport    Cause = "report"
	CauseElapsed   Cause = "time"
	CauseTrial     Cause = "trial"
	CauseSuspend   Cause = "suspend"
	CauseUnsuspend Cause = "unsuspend"
)

// Signal is something that may move a gate.
type Signal struct {
	Cause  Cause
	Reason string // of a suspension: what users read
	Shadow money.NanoUSD
	Now    time.Time
}

// reasonExhausted is what users of an exhausted team read.
const reasonExhausted = "the organisation's credits are used up"

// Next is the whole state machine: the gate that follows from a gate, a balance
// and a signal. Everything that moves a gate goes through it. Applying it twice
// changes nothing more.
func (p Policy) Next(g Gate, s Signal) Gate {
	next := g
	next.State, next.GraceUntil, next.Reason = p.state(g, s)
	if next.State != g.State {
		next.ChangedAt = &s.Now
	}
	if next.Status() != g.Status() || next.Reason != g.Reason {
		next.Generation++
	}
	return next
}

func (p Policy) state(g Gate, s Signal) (GateState, *time.Time, string) {
	switch {
	case s.Cause == CauseSuspend:
		return Suspended, nil, s.Reason
	case g.State == Suspended && s.Cause != CauseUnsuspend:
		return Suspended, nil, g.Reason
	case g.Basis == NoBasis:
		return Unconfigured, nil, ""
	case g.Unlimited || s.Shadow > 0:
		return openState(g.Basis), nil, ""
	case p.inGrace(g, s):
		return Grace, p.graceUntil(g, s.Now), ""
	}
	return Exhausted, nil, reasonExhausted
}

func openState(b Basis) GateState {
	if b == TrialBasis {
		return Trial
	}
	return Active
}

// inGrace says whether a team without credits still has grace. Only one that
// was let through before may have it: a suspension or an exhaustion does not
// end in it, and it is not had twice for one debt.
func (p Policy) inGrace(g Gate, s Signal) bool {
	switch {
	case g.Basis != PlanBasis || p.GracePeriod <= 0 || s.Shadow <= -p.Overdraft:
		return false
	case g.State == Grace:
		return s.Now.Before(*g.GraceUntil)
	}
	return g.Open()
}

func (p Policy) graceUntil(g Gate, now time.Time) *time.Time {
	if g.State == Grace {
		return g.GraceUntil
	}
	until := now.Add(p.GracePeriod)
	return &until
}

// Transition is a change of a team's gate, as it is kept.
type Transition struct {
	TransitionID  string
	TeamID        string
	FromState     GateState
	ToState       GateState
	Cause         Cause
	Reason        string
	ShadowNanoUSD money.NanoUSD
	CreatedAt     time.Time
}

// Grant is credits that a team was given, or that were taken away again.
type Grant struct {
	GrantID          string
	TeamID           string
	Kind             string
	AmountNanoUSD    money.NanoUSD
	ReconciliationID string // empty: it does not come from one
	CreatedAt        time.Time
}

// Move looks at the gate of a balance after it changed, and returns the change
// of state to be kept, if there was one.
func (p Policy) Move(b *Balance, cause Cause, reason string, now time.Time) (Transition, bool) {
	s := Signal{Cause: cause, Reason: reason, Shadow: b.Shadow(), Now: now}
	next := p.Next(b.Gate, s)
	before := b.Gate
	b.Gate = next
	return Transition{
		TransitionID: newUUID(now), TeamID: b.TeamID, FromState: before.State, ToState: next.State,
		Cause: cause, Reason: reason, ShadowNanoUSD: s.Shadow, CreatedAt: now,
	}, next.State != before.State
}

// startTrial gives a team that nobody has configured its trial credits, on top
// of what it was billed before.
func (p Policy) startTrial(b *Balance, now time.Time) (Grant, bool) {
	if p.TrialCredits <= 0 || b.Basis != NoBasis || b.State == Suspended {
		return Grant{}, false
	}
	g := Grant{
		GrantID: newUUID(now), TeamID: b.TeamID, Kind: GrantTrial,
		AmountNanoUSD: p.TrialCredits + b.BilledNanoUSD - b.GrantedNanoUSD, CreatedAt: now,
	}
	b.GrantedNanoUSD += g.AmountNanoUSD
	b.Basis = TrialBasis
	return g, true
}

// checkReason refuses a reason that is missing or too long for users.
func checkReason(reason string) error {
	if reason == "" || len(reason) > 200 {
		return fault.Errorf(fault.Invalid, "reason is empty or longer than 200 bytes")
	}
	return nil
}
