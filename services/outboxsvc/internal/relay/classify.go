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
	Do                 Remedy
}

// Remedy is what has to be done before another attempt makes sense.
type Remedy int

// The remedies.
const (
	Nothing        Remedy = iota
	CreateCustomer        // the sink does not know the team
	Halt                  // the sink refuses us: stop posting
)

// Proofs of an applied charge.
const (
	ProofDeductions = "deductions"
	ProofLock       = "lock_already_exists"
)

// Classify decides what an answer to an attempt at a charge proves. It is made
// for Autumn with a lock as the dedupe device: an attempt under a lock that was
// applied is never applied again for 24 hours, and is then answered with
// lock_already_exists.
func Classify(c Charge, a Answer) Verdict {
	switch {
	case a.NeverSent:
		return Verdict{Outcome: NotApplied, Error: "never sent: " + a.Failure}
	case a.Failure != "":
		return unknown(a, a.Failure)
	case a.Status == 429: // it comes before any work, and not always as JSON
		return notApplied(a, describe(a))
	case a.Foreign:
		return unknown(a, fmt.Sprintf("%d and a body that is not Autumn's", a.Status))
	case a.Status == 200:
		return classifyOK(c, a)
	case a.Status == 202:
		return unknown(a, "202: accepted, not yet applied")
	case a.Status >= 400 && a.Status < 500 && a.Code != "":
		return classifyClientError(c, a)
	case a.Status == 503 && (a.Code == "service_unavailable" || strings.Contains(strings.ToLower(a.Message), "async track")):
		return notApplied(a, describe(a))
	default:
		return unknown(a, describe(a))
	}
}

// classifyOK compares what was deducted with what was asked: a 200 by itself
// proves nothing.
func classifyOK(c Charge, a Answer) Verdict {
	applied := money.NanoUSD(a.Deducted) * money.MicroCredit
	v := Verdict{Proof: ProofDeductions, SinkBalanceCredits: a.Balance}
	switch {
	case a.Deducted == 0 && !a.HasBalance && (a.Says || a.NullBalance):
		// No balance, no lock: the same id may be sent again.
		return notApplied(a, fmt.Sprintf("customer has no balance of feature %s: attach a plan", a.Feature))
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

func classifyClientError(c Charge, a Answer) Verdict {
	switch {
	case a.Status == 409 && a.Code == "lock_already_exists" && c.Attempts > 1:
		return Verdict{Outcome: Applied, Proof: ProofLock}
	case a.Status == 409, a.Status == 408:
		return unknown(a, describe(a))
	case a.Status == 404 && a.Code == "customer_not_found":
		v := notApplied(a, describe(a))
		v.Do = CreateCustomer
		return v
	case a.Status == 401, a.Status == 403:
		v := notApplied(a, fmt.Sprintf("%d %s: Autumn refuses AUTUMN_API_KEY", a.Status, a.Code))
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
