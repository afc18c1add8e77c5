// Package relay carries charges from billing to the sink, once each in effect:
// it leases a charge, posts it, decides what the answer proves, and reports
// that. It settles a charge only on a proof; whatever may have been applied is
// only ever sent again under the same id.
package relay

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Charge is a frozen amount to be taken from a team at the sink.
type Charge struct {
	ChargeID      string // UUID; the charge is sent under it for ever
	TeamID        string // the customer at the sink
	Seq           int64
	AmountNanoUSD money.NanoUSD
	EventCount    int64
	Ambiguous     bool // an earlier attempt may have been applied
	Attempts      int  // this one included
	FirstSentAt   time.Time
}

// Lease is the right to post one charge, once.
type Lease struct {
	Charge Charge
	Token  int64
}

// Outcome is what an answer proves.
type Outcome string

// The outcomes.
const (
	Applied       Outcome = "applied"
	PartlyApplied Outcome = "partly_applied"
	NotApplied    Outcome = "not_applied" // this attempt, certainly
	Unknown       Outcome = "unknown"
	Refused       Outcome = "refused" // certainly not, and trying again is useless
)

// Settlement reports the outcome of a lease.
type Settlement struct {
	ChargeID           string
	Token              int64
	Outcome            Outcome
	Proof              string
	Error              string
	RetryAfter         time.Duration
	AppliedNanoUSD     money.NanoUSD // of PartlyApplied
	SinkBalanceCredits string        // empty: the sink said nothing
}

// DeadCharge is a charge that the sink refused for good.
type DeadCharge struct {
	ChargeID      string
	TeamID        string
	AmountNanoUSD money.NanoUSD
	Reason        string
	Attempts      int32
	FrozenAt      time.Time
}

// DeadQuery asks for a page of dead charges.
type DeadQuery struct {
	TeamID    string
	PageSize  int32
	PageToken string
}

// Charges is billing, which owns the charges.
type Charges interface {
	Lease(ctx context.Context, worker string, limit int, hold time.Duration) ([]Lease, error)
	// Settle fails with a Conflict when the lease was taken over meanwhile.
	Settle(ctx context.Context, s Settlement) error
	Dead(ctx context.Context, q DeadQuery) (charges []DeadCharge, nextPageToken string, err error)
	Requeue(ctx context.Context, chargeIDs []string) (requeued []string, err error)
}

// Sink is where charges are posted to.
type Sink interface {
	// Ready fails when the sink must not be posted to, such as another
	// environment than the one that is meant.
	Ready(ctx context.Context) error
	// Post sends one attempt and never repeats it by itself.
	Post(ctx context.Context, c Charge) Answer
	// CreateCustomer makes the team known to the sink, if it is not.
	CreateCustomer(ctx context.Context, teamID string) error
	Balance(ctx context.Context, teamID string) (Balance, error)
}

// Balance is a team's balance at the sink, in credits, as decimals.
type Balance struct{ Remaining, Used, Granted string }

// Answer is what came back from one attempt, as far as it could be read.
type Answer struct {
	// Failure says why no whole answer arrived. Empty: one did.
	Failure string
	// NeverSent is true when the request certainly did not leave.
	NeverSent bool
	Status    int  // HTTP status
	Foreign   bool // the body is no JSON object of the sink's shape
	// Code and Message are those of an error.
	Code, Message string
	// Says is true when the answer lists what was deducted: Deducted, in
	// micro-credits.
	Says     bool
	Deducted int64
	// Feature is the one that was to be deducted. HasBalance tells that the
	// customer has a balance of it, NullBalance that the answer says he has
	// none; Balance is what is left, in credits.
	Feature     string
	HasBalance  bool
	NullBalance bool
	Balance     string
	// RetryAfter is what the sink asked for. Zero: nothing.
	RetryAfter time.Duration
}
