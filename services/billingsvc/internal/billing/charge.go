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
	Unsure           bool  // some attempt may have been applied, we do not know
	Attempts         int32 // leases
	SentAttempts     int32 // leases that are over and under which it was sent, or may have been
	KeyRound         int32 // of the key that it is sent under: 1, 2, …
	Proof            string
	LastError        string
	FrozenAt         time.Time
	FirstSentAt      *time.Time // nil: never sent
	DueAt            time.Time
	SettledAt        *time.Time // set when posted or short
	ShortfallNanoUSD money.NanoUSD
	LeaseToken       int64  // of the newest lease
	RecordedToken    int64  // of the newest lease whose outcome is recorded
	SentToken        int64  // of the newest lease whose holder said that it sends
	LeaseMarks       bool   // the holder says when it sends
	SentDevice       string // under what it was sent: see Via
	SentKey          string
	SettledIn        int64 // newest lease for a reconciliation of its team when it was settled
	LeaseWorker      string
	LeaseUntil       *time.Time // nil: not leased
}

// Lease is the right to post one charge, once.
type Lease struct {
	Charge    Charge
	Token     int64
	ExpiresAt time.Time
}

// Via is under what a charge is sent: the device by which the sink takes it once,
// "autumn/lock", and the key that it is given, without its round. Zero: its sender
// does not say.
type Via struct{ Device, Key string }

func (v Via) check() error {
	if (v.Device == "") != (v.Key == "") {
		return fault.Errorf(fault.Invalid, "device and key do not go without each other")
	}
	if len(v.Device) > 100 || len(v.Key) > 500 {
		return fault.Errorf(fault.Invalid, "device is longer than 100 bytes, or key than 500")
	}
	return nil
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
	NeverApplied  Outcome = "never_applied" // no attempt of the charge was, as was verified
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
	// NotSent: the lease was not used. The charge counts no attempt.
	NotSent bool
	// KeyUsedUp: the sink knows the key and has not applied it.
	KeyUsedUp bool
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
	case s.NotSent && s.Outcome != NotApplied && s.Outcome != Refused && s.Outcome != Unknown:
		return fault.Errorf(fault.Invalid, "outcome %s needs an attempt that was sent", s.Outcome)
	case s.KeyUsedUp && s.Outcome != NotApplied && s.Outcome != NeverApplied && s.Outcome != Refused:
		return fault.Errorf(fault.Invalid, "outcome %s does not go with key_used_up", s.Outcome)
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
	if s.NotSent && c.Sent() && c.LeaseMarks {
		return c, 0, fault.Errorf(fault.Invalid, "charge %s was marked as sent under this lease", c.ChargeID)
	}
	next = c.ended(s.NotSent)
	next.LastError = s.Error
	if s.KeyUsedUp {
		next.KeyRound++
	}
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
		next.State, next.DueAt = waiting(c.Unsure), now.Add(s.RetryAfter)
	case Unknown:
		next.Unsure = c.Unsure || !s.NotSent
		next.State, next.DueAt = waiting(next.Unsure), now.Add(s.RetryAfter)
	case Refused:
		next.State = Dead
	case NeverApplied:
		next.State, next.DueAt = Pending, now.Add(s.RetryAfter)
		next = next.anew()
	default:
		return c, 0, fault.Errorf(fault.Invalid, "outcome is not set")
	}
	return next, 0, nil
}

// Sent says whether the charge was sent under its newest lease, or may have
// been: a holder that does not mark what it sends may have sent at any time.
func (c Charge) Sent() bool {
	return c.LeaseToken > 0 && (!c.LeaseMarks || c.SentToken == c.LeaseToken)
}

// Doubtful says whether the charge may be applied although it is not settled:
// an attempt of it was never answered, or is under way.
func (c Charge) Doubtful() bool {
	return c.SettledAt == nil && (c.Unsure || c.LeaseToken > c.RecordedToken && c.Sent())
}

// ended returns the charge with its lease over and recorded.
func (c Charge) ended(notSent bool) Charge {
	switch {
	case c.Sent() && !notSent:
		c.SentAttempts++
	case c.SentAttempts == 0:
		c.FirstSentAt = nil // the lease alone had set it
	}
	c.RecordedToken, c.LeaseWorker, c.LeaseUntil = c.LeaseToken, "", nil
	return c
}

// anew returns the charge as one that was never sent.
func (c Charge) anew() Charge {
	c.Unsure, c.SentAttempts, c.FirstSentAt = false, 0, nil
	c.SentDevice, c.SentKey = "", ""
	return c
}

// Take returns the charge leased to the one who asks. What its last lease left
// open is ended first.
func (c Charge) Take(q LeaseQuery) Charge {
	c = c.Lapse()
	c.Attempts++
	c.LeaseToken++
	c.LeaseMarks, c.LeaseWorker, c.LeaseUntil = q.Marks, q.Worker, &q.Until
	if c.FirstSentAt == nil && !q.Marks {
		c.FirstSentAt = &q.Now
	}
	return c
}

// MarkSent returns a leased charge that is about to be sent. While an attempt may
// have been applied, what that one was sent under is kept: only under it does the
// sink know the charge.
func (c Charge) MarkSent(via Via, now time.Time) (Charge, error) {
	if !c.LeaseMarks {
		return c, fault.Errorf(fault.Precondition, "charge %s was leased without marks_sent", c.ChargeID)
	}
	if c.FirstSentAt == nil {
		c.FirstSentAt = &now
	}
	c.SentToken = c.LeaseToken
	if !c.Unsure || c.SentDevice == "" {
		c.SentDevice, c.SentKey = via.Device, via.Key
	}
	return c, nil
}

// Renew returns a leased charge with a later end.
func (c Charge) Renew(until time.Time) (Charge, error) {
	if c.LeaseUntil == nil {
		return c, fault.Errorf(fault.Conflict, "the lease of charge %s ran out", c.ChargeID)
	}
	c.LeaseUntil = &until
	return c, nil
}

// Lapse returns the charge with a lease that ran out without an outcome ended.
// If the charge was sent under it, it may have been applied.
func (c Charge) Lapse() Charge {
	if c.LeaseToken <= c.RecordedToken {
		return c
	}
	c.Unsure = c.Unsure || c.Sent()
	if c.State == Pending || c.State == Ambiguous {
		c.State = waiting(c.Unsure)
	}
	return c.ended(false)
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
		return state == Ambiguous || s.NotSent && state == Pending
	case Refused:
		return state == Dead
	case NeverApplied:
		return state == Pending
	}
	return false
}

// waiting is the state of a charge that waits. One that an earlier attempt
// may have applied stays ambiguous, whatever the newest attempt proved of
// itself.
func waiting(unsure bool) State {
	if unsure {
		return Ambiguous
	}
	return Pending
}
