package billing

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// State is where a charge stands.
type State string

// The states.
const (
	Pending   State = "pending"   // waits for its next attempt
	Posted    State = "posted"    // proved to be applied
	Short     State = "short"     // applied in part; the rest is the shortfall
	Ambiguous State = "ambiguous" // perhaps applied
	Dead      State = "dead"      // refused for good, until it is requeued
)

// Charge is the frozen sum of some of a team's events. Its id, place, amount
// and events never change:
// amount = carry of the charge before + prices of its events − its own carry.
type Charge struct {
	ChargeID       string // UUIDv7
	TeamID         string
	Seq            int64         // 1, 2, 3, … within the team
	AmountNanoUSD  money.NanoUSD // a positive multiple of a micro-credit
	CarriedNanoUSD money.NanoUSD // what it left for the next charge
	EventCount     int64
	Checksum       string

	State            State
	Unsure           bool // some attempt may have been applied, we do not know
	Attempts         int32
	Proof            string
	LastError        string
	FrozenAt         time.Time
	FirstSentAt      *time.Time // nil: never sent
	DueAt            time.Time
	SettledAt        *time.Time // set when posted or short
	ShortfallNanoUSD money.NanoUSD
	LeaseToken       int64 // of the newest lease
	RecordedToken    int64 // of the newest lease whose outcome is recorded
	LeaseWorker      string
	LeaseUntil       *time.Time // nil: not leased
}

// Lease is the right to post one charge, once.
type Lease struct {
	Charge    Charge
	Token     int64
	ExpiresAt time.Time
}

// Outcome is what the sink's answer to an attempt proves.
type Outcome string

// The outcomes.
const (
	Applied       Outcome = "applied"
	PartlyApplied Outcome = "partly_applied"
	NotApplied    Outcome = "not_applied"
	Unknown       Outcome = "unknown"
	Refused       Outcome = "refused"
)

// Settlement records the outcome of one attempt.
type Settlement struct {
	ChargeID           string
	LeaseToken         int64
	Outcome            Outcome
	Proof              string
	Error              string
	RetryAfter         time.Duration // for NotApplied and Unknown
	AppliedNanoUSD     money.NanoUSD // for PartlyApplied
	SinkBalanceCredits string        // empty: the sink said nothing
}

// check refuses a settlement that could not be right for any charge.
func (s Settlement) check() error {
	switch {
	case s.ChargeID == "":
		return fault.Errorf(fault.Invalid, "charge_id is empty")
	case s.LeaseToken <= 0:
		return fault.Errorf(fault.Invalid, "lease_token is not the token of a lease")
	case s.RetryAfter < 0:
		return fault.Errorf(fault.Invalid, "retry_after_ms is negative")
	case (s.Outcome == Applied || s.Outcome == PartlyApplied) && s.Proof == "":
		return fault.Errorf(fault.Invalid, "outcome %s needs a proof", s.Outcome)
	case s.SinkBalanceCredits != "" && !isDecimal(s.SinkBalanceCredits):
		return fault.Errorf(fault.Invalid, "sink_balance_credits is not a decimal number")
	}
	return nil
}

// Apply returns the charge with the outcome recorded, and what it adds to the
// posted sum of the team. Repeating a recorded outcome changes nothing; a lease
// that another worker took over since is a Conflict.
func (s Settlement) Apply(c Charge, now time.Time) (next Charge, posted money.NanoUSD, err error) {
	if c.LeaseToken != s.LeaseToken {
		return c, 0, fault.Errorf(fault.Conflict, "charge %s is no longer leased to the caller", c.ChargeID)
	}
	if c.RecordedToken == s.LeaseToken {
		if s.recordedIn(c.State) {
			return c, 0, nil
		}
		return c, 0, fault.Errorf(fault.Conflict, "another outcome of this attempt at charge %s is recorded", c.ChargeID)
	}
	next = c
	next.RecordedToken, next.LeaseWorker, next.LeaseUntil = s.LeaseToken, "", nil
	next.LastError = s.Error
	switch s.Outcome {
	case Applied:
		next.State, next.Proof, next.SettledAt = Posted, s.Proof, &now
		return next, c.AmountNanoUSD, nil
	case PartlyApplied:
		if s.AppliedNanoUSD < 0 || s.AppliedNanoUSD >= c.AmountNanoUSD {
			return c, 0, fault.Errorf(fault.Invalid, "applied_nano_usd is not from 0 to below the amount of charge %s", c.ChargeID)
		}
		next.State, next.Proof, next.SettledAt = Short, s.Proof, &now
		next.ShortfallNanoUSD = c.AmountNanoUSD - s.AppliedNanoUSD
		return next, s.AppliedNanoUSD, nil
	case NotApplied:
		next.State, next.DueAt = openState(c.Unsure), now.Add(s.RetryAfter)
	case Unknown:
		next.State, next.Unsure, next.DueAt = Ambiguous, true, now.Add(s.RetryAfter)
	case Refused:
		next.State = Dead
	default:
		return c, 0, fault.Errorf(fault.Invalid, "outcome is not set")
	}
	return next, 0, nil
}

// recordedIn says whether a charge in a state may have come there by the
// outcome.
func (s Settlement) recordedIn(state State) bool {
	switch s.Outcome {
	case Applied:
		return state == Posted
	case PartlyApplied:
		return state == Short
	case NotApplied:
		return state == Pending || state == Ambiguous
	case Unknown:
		return state == Ambiguous
	case Refused:
		return state == Dead
	}
	return false
}

// openState is the state of a charge that waits. One that an earlier attempt
// may have applied stays ambiguous, whatever the newest attempt proved of
// itself.
func openState(unsure bool) State {
	if unsure {
		return Ambiguous
	}
	return Pending
}
