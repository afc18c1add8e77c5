package relay

import (
	"fmt"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Verdict is what an answer proves, and what to do about it.
type Verdict struct {
	Outcome            Outcome
	Proof              string
	Error              string
	AppliedNanoUSD     money.NanoUSD
	SinkBalanceCredits string
	RetryAfter         time.Duration // what the sink asked for
	KeyUsedUp          bool
	Do                 Remedy
	// Ill: the sink, or the way to it, is out of order, and not this one team.
	Ill bool
}

// Remedy is what has to be done before another attempt makes sense.
type Remedy int

// The remedies.
const (
	Nothing        Remedy = iota
	CreateCustomer        // the sink does not know the team
	Halt                  // the sink refuses us: stop posting
	Verify                // the sink says that it was done, and we never did it
)

// Proofs of an applied charge.
const (
	ProofDeductions = "deductions"
	ProofLock       = "lock_already_exists"
	ProofEvents     = "events_list"
	ProofUsage      = "usage_delta"
)

// clash begins the error of a charge of which the sink said that it was done
// before, although no attempt of ours can have done it. Such a charge is never
// sent again unverified: the next answer would be the same and would then look
// like a proof.
const clash = "unproved: "

// Classify decides what an answer to an attempt at a charge proves, by the way
// in which the sink dedupes.
func Classify(c Charge, a Answer, d Dedupe) Verdict {
	switch {
	case a.NeverSent:
		return Verdict{Outcome: NotApplied, Error: "never sent: " + a.Failure, Ill: true}
	case a.Failure != "":
		return ill(unknown(a, a.Failure))
	case a.Status == 429: // it comes before any work, and not always as JSON
		return notApplied(a, describe(a))
	case a.Foreign:
		return ill(unknown(a, fmt.Sprintf("%d and a body that is not the sink's", a.Status)))
	case a.Status == 200:
		return classifyOK(c, a, d)
	case a.Status == 202:
		v := unknown(a, "202: accepted, not yet applied")
		v.RetryAfter = max(v.RetryAfter, checkAcceptedAfter)
		return v
	case a.Status >= 400 && a.Status < 500 && a.Code != "":
		return classifyClientError(c, a, d)
	case a.Status == 503 && (a.Code == CodeNotAvailable || strings.Contains(strings.ToLower(a.Message), asyncNotAvailable)):
		return notApplied(a, describe(a))
	default:
		return ill(unknown(a, describe(a)))
	}
}

// classifyOK compares what was deducted with what was asked: a 200 by itself
// proves nothing.
func classifyOK(c Charge, a Answer, d Dedupe) Verdict {
	applied := money.NanoUSD(a.Deducted) * money.MicroCredit
	v := Verdict{Proof: ProofDeductions, SinkBalanceCredits: a.Balance}
	switch {
	case a.Deducted == 0 && !a.HasBalance && (a.Says || a.NullBalance):
		// No balance, no lock: the same id may be sent again. A claimed key is
		// used up.
		v = notApplied(a, fmt.Sprintf("customer has no balance of feature %s: attach a plan", a.Feature))
		v.KeyUsedUp = d == Claiming
		return v
	case !a.Says:
		return unknown(a, "200 that does not say what was deducted")
	case applied == c.AmountNanoUSD:
		v.Outcome = Applied
	case applied >= 0 && applied < c.AmountNanoUSD:
		// Nothing out of a balance that is there is a part of nothing: the lock
		// is taken, so that another attempt would look like a full success.
		v.Outcome, v.AppliedNanoUSD = PartlyApplied, applied
		v.Error = fmt.Sprintf("deducted %s of %s credits: a spend limit, or overage is not allowed", applied.Credits(), c.AmountNanoUSD.Credits())
	default:
		return unknown(a, fmt.Sprintf("deducted %s credits instead of %s: verify by hand", applied.Credits(), c.AmountNanoUSD.Credits()))
	}
	return v
}

func classifyClientError(c Charge, a Answer, d Dedupe) Verdict {
	switch {
	case a.Status == 409 && a.Code == CodeLockExists && c.Unsure && d == Collapsing:
		// Only an attempt that may have been applied can have taken the lock.
		return Verdict{Outcome: Applied, Proof: ProofLock}
	case a.Status == 409 && (a.Code == CodeLockExists || a.Code == CodeKeyClaimed) && !c.Unsure:
		v := unknown(a, clash+describe(a)+", and no attempt of ours can have been applied: a false answer, or another installation uses our ids")
		v.Do = Verify
		return v
	case a.Status == 409, a.Status == 408:
		return unknown(a, describe(a))
	case a.Status == 404 && a.Code == CodeNoCustomer:
		v := notApplied(a, describe(a))
		v.Do = CreateCustomer
		return v
	case a.Status == 401, a.Status == 403:
		v := notApplied(a, fmt.Sprintf("%d %s: the sink refuses our credentials", a.Status, a.Code))
		v.Do = Halt
		return v
	default:
		return Verdict{Outcome: Refused, Error: describe(a)}
	}
}

func notApplied(a Answer, why string) Verdict {
	return Verdict{Outcome: NotApplied, Error: why, RetryAfter: a.RetryAfter}
}

func unknown(a Answer, why string) Verdict {
	return Verdict{Outcome: Unknown, Error: why, RetryAfter: a.RetryAfter}
}

func ill(v Verdict) Verdict {
	v.Ill = true
	return v
}

func describe(a Answer) string {
	text := fmt.Sprint(a.Status)
	if a.Code != "" {
		text += " " + a.Code
	}
	if a.Message != "" {
		text += ": " + a.Message
	}
	return text
}
