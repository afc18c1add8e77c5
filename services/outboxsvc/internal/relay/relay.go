// Package relay carries charges from billing to the sink, once each in effect:
// it leases a charge, says that it sends it, posts it, decides what the answer
// proves, and reports that. It settles a charge only on a proof; whatever may
// have been applied is either sent again under an id that the sink collapses, or
// verified first. It also reads the sink's balances for billing, and asks for
// the top-ups that billing wants.
package relay

import (
	"context"
	"strconv"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Charge is a frozen amount to be taken from a team at the sink.
type Charge struct {
	ChargeID      string // UUID; the charge is sent under it for ever
	TeamID        string // the customer at the sink, for posts and for reads
	Seq           int64
	AmountNanoUSD money.NanoUSD
	EventCount    int64
	Unsure        bool // an earlier attempt may have been applied
	Attempts      int  // this one included
	KeyRound      int  // of the key: one more each time that it was used up without an effect
	LastError     string
	FrozenAt      time.Time
	FirstSentAt   time.Time // zero: never sent
	// Via is under what it is sent. Of one that is Unsure it is what billing kept of
	// the attempt that may have been applied; zero: that is not known.
	Via Via
}

// Via is under what a charge is sent: the device by which the sink takes it once,
// such as "autumn/lock", and the key that the device is given, without its round.
type Via struct{ Device, Key string }

// Key is the id under which the sink takes the charge once: for ever the same but for
// its round.
func (c Charge) Key() string {
	if c.KeyRound > 1 {
		return c.Via.Key + ":r" + strconv.Itoa(c.KeyRound)
	}
	return c.Via.Key
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
	Refused       Outcome = "refused"       // certainly not, and trying again is useless
	NeverApplied  Outcome = "never_applied" // no attempt of the charge was, as was verified
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
	NotSent            bool          // the lease was not used
	KeyUsedUp          bool          // the sink holds the key and has not applied it
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

// Requeue asks for dead charges to be made due again: those that are named, or
// those that the filter finds.
type Requeue struct {
	ChargeIDs                 []string
	TeamID, ReasonContains    string
	FrozenAfter, FrozenBefore time.Time // zero: no bound
	Max                       int32
	DryRun, Verified          bool
	Actor, Reason             string
}

// Requeued tells which charges are due again, or would be.
type Requeued struct {
	ChargeIDs  []string
	Unverified []string // they may have been applied too long ago
}

// Resolve settles by hand a charge that is dead or in doubt.
type Resolve struct {
	ChargeID       string
	Applied        bool
	AppliedNanoUSD money.NanoUSD // zero: all of it
	NewKey         bool          // of one that was not applied
	DryRun         bool
	Actor, Reason  string
}

// Resolved is what became of it, or would.
type Resolved struct {
	ChargeID, TeamID, State  string
	AmountNanoUSD, Shortfall money.NanoUSD
}

// Pause names what is to be paused or resumed: a team, or all.
type Pause struct {
	TeamID        string
	All           bool
	Actor, Reason string
}

// Charges is the part of billing that owns the charges.
type Charges interface {
	Lease(ctx context.Context, worker string, limit int, hold time.Duration) ([]Lease, error)
	// MarkSent says that the charge is about to be sent, and under what. Conflict:
	// the lease is no longer ours, and it must not be.
	MarkSent(ctx context.Context, chargeID string, token int64, via Via) error
	// Settle fails with a Conflict when the lease was taken over meanwhile.
	Settle(ctx context.Context, s Settlement) error
	// InDoubt lists the charges that wait and may have been applied.
	InDoubt(ctx context.Context) ([]Charge, error)
	Dead(ctx context.Context, q DeadQuery) (charges []DeadCharge, nextPageToken string, err error)
	Requeue(ctx context.Context, r Requeue) (Requeued, error)
	Resolve(ctx context.Context, r Resolve) (Resolved, error)
	Pause(ctx context.Context, p Pause) error
	Resume(ctx context.Context, p Pause) (resumed bool, err error)
}

// Billing owns charges, books and top-ups.
type Billing interface {
	Charges
	Books
	Till
}

// Dedupe is what a sink keeps of ids that it was sent.
type Dedupe int

// The kinds.
const (
	// Collapsing: the id is checked together with the work, so that sending
	// again does the work or says that it is done.
	Collapsing Dedupe = iota
	// Claiming: the id is claimed apart from the work and let go after a
	// failure. Sending again may do the work twice, and being told that the id
	// is claimed proves nothing: what is in doubt must be verified first.
	Claiming
)

// Sink is where charges are posted to.
type Sink interface {
	// Configured says whether there are credentials. Without, charges wait.
	Configured() bool
	// Ready fails when the sink must not be posted to: it refuses us, or is of
	// another environment than the one that is meant.
	Ready(ctx context.Context) error
	// Via is under what a charge is sent of which no attempt is in doubt.
	Via(c Charge) Via
	// Dedupe is what the sink makes of a second attempt under a device. Not ok: the
	// device is another sink's.
	Dedupe(device string) (kind Dedupe, ok bool)
	// Post sends one attempt under the charge's Via, or under what the sink says when
	// it is zero, and never repeats it by itself.
	Post(ctx context.Context, c Charge) Answer
	// CreateCustomer makes the team known to the sink, if it is not.
	CreateCustomer(ctx context.Context, teamID string) error
	// Sight reads a team's balance. NotFound: there is none.
	Sight(ctx context.Context, teamID string) (Sighting, error)
	// Held reads what the sink's list of events says was deducted for a charge.
	// That it has no event with a deduction proves nothing.
	Held(ctx context.Context, c Charge) (applied money.NanoUSD, found bool, err error)
	// Buy asks for a top-up, once.
	Buy(ctx context.Context, t TopUp) Purchase
}

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

// Codes of answers that are understood.
const (
	CodeLockExists     = "lock_already_exists"
	CodeKeyClaimed     = "duplicate_idempotency_key"
	CodeNoCustomer     = "customer_not_found"
	CodeNotAvailable   = "service_unavailable"
	asyncNotAvailable  = "async track" // part of the message of a 503
	checkAcceptedAfter = 30 * time.Second
)
