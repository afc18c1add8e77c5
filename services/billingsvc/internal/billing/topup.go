package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// TopUpRule says whether and how a team's credits are topped up.
type TopUpRule struct {
	TeamID        string
	Enabled       bool
	BelowNanoUSD  money.NanoUSD // ask when the shadow balance is below this
	AmountNanoUSD money.NanoUSD // what to buy
	MaxPerMonth   int32
	DeclinedAt    *time.Time // the breaker; nil: closed
	DeclineReason string
}

// Declined says whether the breaker holds: a card was declined in this month.
// The month is looked at first, so that the breaker ends with it.
func (r TopUpRule) Declined(now time.Time) bool {
	return r.DeclinedAt != nil && month(*r.DeclinedAt).Equal(month(now))
}

func month(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// MonthOf is the calendar month (UTC) in which top-ups are counted together.
func MonthOf(t time.Time) time.Time { return month(t) }

// TopUpState is where a top-up stands.
type TopUpState string

// The states.
const (
	TopUpPending   TopUpState = "pending"
	TopUpSucceeded TopUpState = "succeeded"
	TopUpDeclined  TopUpState = "declined"
	TopUpFailed    TopUpState = "failed"
	TopUpUnknown   TopUpState = "unknown" // perhaps done
)

// TopUp is one purchase of credits. Its id and amount never change.
type TopUp struct {
	TopUpID       string // UUIDv7; the key at the sink is made of it
	TeamID        string
	AmountNanoUSD money.NanoUSD
	State         TopUpState
	Attempts      int32
	LastError     string
	InvoiceID     string // what it was paid with; empty: not, or not known
	CreatedAt     time.Time
	FirstSentAt   *time.Time
	DueAt         time.Time
	SettledAt     *time.Time
	LeaseToken    int64
	RecordedToken int64
	LeaseWorker   string
	LeaseUntil    *time.Time
}

// TopUpTally is what is known of a team's top-ups.
type TopUpTally struct {
	Open          bool       // one is under way
	ThisMonth     int32      // made this month and not declined or failed
	LastSettledAt *time.Time // of one that succeeded
	ReconciledAt  *time.Time // when the sink's balance was last read
}

// Due decides whether a team needs a top-up now. After one that succeeded it
// waits until the sink's balance was read: else it would buy twice for one need.
func (r TopUpRule) Due(b Balance, t TopUpTally, now time.Time) bool {
	switch {
	case !r.Enabled || r.Declined(now) || t.Open || t.ThisMonth >= r.MaxPerMonth:
		return false
	case b.Basis != PlanBasis || b.Unlimited || b.State == Suspended:
		return false
	case t.LastSettledAt != nil && (t.ReconciledAt == nil || !t.ReconciledAt.After(*t.LastSettledAt)):
		return false
	}
	return b.Shadow() < r.BelowNanoUSD
}

// Open makes the top-up of a team that needs one.
func (r TopUpRule) Open(now time.Time) TopUp {
	return TopUp{
		TopUpID: newUUID(now), TeamID: r.TeamID, AmountNanoUSD: r.AmountNanoUSD, State: TopUpPending, CreatedAt: now, DueAt: now,
	}
}

// TopUpLease is the right to ask for one top-up, once.
type TopUpLease struct {
	TopUp     TopUp
	Token     int64
	ExpiresAt time.Time
	Counted   []string // invoices of the team's other top-ups
}

// TopUpOutcome is what the sink's answer proves.
type TopUpOutcome string

// The outcomes.
const (
	TopUpPaid    TopUpOutcome = "succeeded"
	TopUpNo      TopUpOutcome = "declined" // or somebody has to act
	TopUpNotDone TopUpOutcome = "not_done"
	TopUpUnsure  TopUpOutcome = "unknown"
	TopUpRefused TopUpOutcome = "refused" // for good
)

// TopUpSettlement records the outcome of one attempt.
type TopUpSettlement struct {
	TopUpID    string
	LeaseToken int64
	Outcome    TopUpOutcome
	Detail     string
	InvoiceID  string // of one that was paid; empty: not known
	RetryAfter time.Duration
}

// Apply returns the top-up with the outcome recorded. Repeating a recorded one
// changes nothing; a lease that was taken over is a Conflict.
func (s TopUpSettlement) Apply(t TopUp, now time.Time) (TopUp, error) {
	if t.LeaseToken != s.LeaseToken {
		return t, fault.Errorf(fault.Conflict, "top-up %s is no longer leased to the caller", t.TopUpID)
	}
	if t.RecordedToken == s.LeaseToken {
		return t, nil
	}
	next := t
	next.RecordedToken, next.LeaseWorker, next.LeaseUntil, next.LastError = s.LeaseToken, "", nil, s.Detail
	switch s.Outcome {
	case TopUpPaid:
		next.State, next.SettledAt, next.LastError, next.InvoiceID = TopUpSucceeded, &now, "", s.InvoiceID
	case TopUpNo:
		next.State, next.SettledAt = TopUpDeclined, &now
	case TopUpRefused:
		next.State, next.SettledAt = TopUpFailed, &now
	case TopUpNotDone:
		next.DueAt = now.Add(s.RetryAfter)
	case TopUpUnsure:
		next.State, next.DueAt = TopUpUnknown, now.Add(s.RetryAfter)
	default:
		return t, fault.Errorf(fault.Invalid, "outcome is not set")
	}
	return next, nil
}

// Trips says whether the outcome trips the team's breaker.
func (s TopUpSettlement) Trips() bool { return s.Outcome == TopUpNo || s.Outcome == TopUpRefused }

// ResolveTopUp settles by hand a top-up of which nobody knows whether it was paid.
type ResolveTopUp struct {
	TopUpID   string
	Paid      bool
	InvoiceID string // of one that was paid; empty: not known
	DryRun    bool
	By
}

func (r ResolveTopUp) check() error {
	switch {
	case r.TopUpID == "":
		return fault.Errorf(fault.Invalid, "top_up_id is empty")
	case len(r.InvoiceID) > longestInvoice:
		return fault.Errorf(fault.Invalid, "invoice_id is longer than %d bytes", longestInvoice)
	case r.InvoiceID != "" && !r.Paid:
		return fault.Errorf(fault.Invalid, "invoice_id is of a top-up that was paid")
	}
	return checkReason(r.Reason)
}

const longestInvoice = 200

// Apply returns the top-up as it was resolved. A late outcome of its last lease
// changes nothing any more.
func (r ResolveTopUp) Apply(t TopUp, now time.Time) (TopUp, error) {
	if t.LeaseUntil != nil && t.LeaseUntil.After(now) {
		return t, fault.Errorf(fault.Conflict, "an attempt at top-up %s is under way; try again", t.TopUpID)
	}
	if t.State != TopUpUnknown && (t.State != TopUpPending || t.LeaseToken == t.RecordedToken) {
		return t, fault.Errorf(fault.Precondition, "top-up %s is %s: there is nothing to resolve", t.TopUpID, t.State)
	}
	next := t
	next.LeaseToken++
	next.RecordedToken, next.LeaseWorker, next.LeaseUntil = next.LeaseToken, "", nil
	next.State, next.SettledAt, next.LastError = TopUpFailed, &now, "resolved by hand: not paid"
	if r.Paid {
		next.State, next.LastError, next.InvoiceID = TopUpSucceeded, "", r.InvoiceID
	}
	return next, nil
}

// Till is where top-ups are kept.
type Till interface {
	TopUpRule(ctx context.Context, teamID string) (TopUpRule, error)
	SetTopUpRule(ctx context.Context, r TopUpRule, op Operation) error
	// OpenTopUps makes the top-ups that are due, each under the locks of its
	// team's rule and balance.
	OpenTopUps(ctx context.Context, now time.Time) error
	LeaseTopUps(ctx context.Context, q LeaseQuery) ([]TopUpLease, error)
	// SettleTopUp locks the top-up, applies the settlement, trips the breaker
	// when it says so, and makes the team due for a reconciliation.
	SettleTopUp(ctx context.Context, s TopUpSettlement, now time.Time) (TopUp, error)
	// ResolveTopUp locks the top-up, applies the resolution, and makes the team due
	// for a reconciliation.
	ResolveTopUp(ctx context.Context, r ResolveTopUp, op Operation, now time.Time) (TopUp, error)
}

// TopUpRule returns a team's rule; a disabled one when it has none.
func (s *Service) TopUpRule(ctx context.Context, teamID string) (TopUpRule, error) {
	return s.store.TopUpRule(ctx, teamID)
}

// SetTopUpRule sets a team's rule, and closes its breaker.
func (s *Service) SetTopUpRule(ctx context.Context, r TopUpRule, by By) (TopUpRule, error) {
	if err := checkTeam(r.TeamID); err != nil {
		return TopUpRule{}, err
	}
	switch {
	case r.Enabled && r.AmountNanoUSD <= 0:
		return TopUpRule{}, fault.Errorf(fault.Invalid, "amount_nano_usd is not more than 0")
	case r.Enabled && (r.MaxPerMonth < 1 || r.MaxPerMonth > 1000):
		return TopUpRule{}, fault.Errorf(fault.Invalid, "max_per_month is not from 1 to 1000")
	case r.AmountNanoUSD < 0 || r.MaxPerMonth < 0:
		return TopUpRule{}, fault.Errorf(fault.Invalid, "amount_nano_usd or max_per_month is negative")
	}
	r.DeclinedAt, r.DeclineReason = nil, ""
	return r, s.store.SetTopUpRule(ctx, r, NewOperation("top_up_rule", r.TeamID, by, r, s.now()))
}

// LeaseTopUps opens the top-ups that are due and hands them out. None, when
// top-ups are switched off.
func (s *Service) LeaseTopUps(ctx context.Context, worker string, limit int, hold time.Duration) ([]TopUpLease, error) {
	if err := checkLease(worker, limit, hold); err != nil || !s.topUps {
		return nil, err
	}
	now := s.now()
	if err := s.store.OpenTopUps(ctx, now); err != nil {
		return nil, err
	}
	return s.store.LeaseTopUps(ctx, LeaseQuery{Worker: worker, Max: limit, Now: now, Until: now.Add(hold)})
}

// SettleTopUp records the outcome of one attempt. It gives no credits: those
// come with the next balance that the sink reports.
func (s *Service) SettleTopUp(ctx context.Context, st TopUpSettlement) (TopUp, error) {
	switch {
	case st.TopUpID == "":
		return TopUp{}, fault.Errorf(fault.Invalid, "top_up_id is empty")
	case st.LeaseToken <= 0:
		return TopUp{}, fault.Errorf(fault.Invalid, "lease_token is not the token of a lease")
	case len(st.Detail) > 1000:
		return TopUp{}, fault.Errorf(fault.Invalid, "detail is longer than 1000 bytes")
	case len(st.InvoiceID) > longestInvoice:
		return TopUp{}, fault.Errorf(fault.Invalid, "invoice_id is longer than %d bytes", longestInvoice)
	}
	return s.store.SettleTopUp(ctx, st, s.now())
}

// ResolveTopUp settles a top-up by hand.
func (s *Service) ResolveTopUp(ctx context.Context, r ResolveTopUp) (TopUp, error) {
	if err := r.check(); err != nil {
		return TopUp{}, err
	}
	now := s.now()
	op := NewOperation("resolve_top_up", "", r.By, map[string]any{
		"top_up_id": r.TopUpID, "paid": r.Paid, "invoice_id": r.InvoiceID,
	}, now)
	return s.store.ResolveTopUp(ctx, r, op, now)
}
