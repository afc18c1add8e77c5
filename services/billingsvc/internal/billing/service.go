package billing

import (
	"context"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Desk is where charges are handed out and settled.
type Desk interface {
	Lease(ctx context.Context, q LeaseQuery) ([]Lease, error)
	// Settle locks the charge, applies the settlement to it and writes it and
	// the team's balance. NotFound when there is no such charge.
	Settle(ctx context.Context, s Settlement, now time.Time) (Charge, error)
	// MarkSent records that a leased charge is about to be sent, and under what.
	// Conflict when the lease is another's.
	MarkSent(ctx context.Context, chargeID string, token int64, via Via, now time.Time) (Charge, error)
	// Renew prolongs a lease. Conflict when it is another's, or over.
	Renew(ctx context.Context, chargeID string, token int64, until time.Time) error
	// Requeue applies the request to the dead charges that it chooses, and
	// writes them and the operation unless it is a dry run.
	Requeue(ctx context.Context, r Requeue, op Operation, now time.Time) (Requeued, error)
	// Resolve locks the charge, applies the resolution to it, and writes it, the
	// team's balance and the operation unless it is a dry run. NotFound when there
	// is no such charge.
	Resolve(ctx context.Context, r Resolve, op Operation, now time.Time) (Charge, error)
}

// Shelf is where everything can be looked up.
type Shelf interface {
	// Balance returns zero sums for a team that was never billed.
	Balance(ctx context.Context, teamID string) (Balance, error)
	Charges(ctx context.Context, q ChargeQuery) ([]Charge, error)
	Events(ctx context.Context, q EventQuery) ([]Event, error)
	// Balances lists balances by team.
	Balances(ctx context.Context, q BalanceQuery) ([]Balance, error)
	Audit(ctx context.Context, full bool) (Audit, error)
}

// Store is what the service keeps its data in.
type Store interface {
	Books
	Desk
	Shelf
	Markups
	Recorder
	Quarantine
	Pauses
	History
	Announcer
	Reconciler
	Till
}

// LeaseQuery asks for charges to post.
type LeaseQuery struct {
	Worker string
	Max    int
	Now    time.Time
	Until  time.Time
	Marks  bool // the holder says when it sends
}

// BalanceQuery filters balances, by team.
type BalanceQuery struct {
	State GateState // empty: all
	After string    // only teams after this one
	Limit int
}

// ChargeQuery filters charges, newest first.
type ChargeQuery struct {
	TeamID string // empty: all
	State  State  // empty: all
	Before string // only ids before this one; empty: from the newest on
	Limit  int
}

// EventQuery filters events, newest first.
type EventQuery struct {
	TeamID         string // empty: all
	IdempotencyKey string // empty: all
	// Only events before this place in the order; zero and empty: from the
	// newest on.
	BeforeTime time.Time
	BeforeKey  string
	Limit      int
}

// Options are what a Service may be given.
type Options struct {
	Rules     Rules
	Reconcile ReconcileRules
	TopUps    bool // switched on
	// Keys is told of gates. Nil: nobody is, and gates stop nothing.
	Keys Keys
	// Batch is how many rows of a log are billed in one transaction, and so
	// with one charge a team. Zero: a page.
	Batch int
	// Observe is told of every new reconciliation. Nil: nobody is.
	Observe func(Reconciliation)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Service is billing. Its methods may be called at the same time.
type Service struct {
	spend     SpendLog
	store     Store
	rules     Rules
	reconcile ReconcileRules
	topUps    bool
	keys      Keys
	batch     int
	observe   func(Reconciliation)
	turn      chan struct{} // held by the running sync
	woken     chan struct{}
	now       func() time.Time
}

// New makes the service.
func New(spend SpendLog, store Store, opt Options) *Service {
	if opt.Observe == nil {
		opt.Observe = func(Reconciliation) {}
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Service{
		spend: spend, store: store, rules: opt.Rules, reconcile: opt.Reconcile, topUps: opt.TopUps, keys: opt.Keys, batch: opt.Batch,
		observe: opt.Observe,
		turn:    make(chan struct{}, 1), woken: make(chan struct{}, 1), now: utc(opt.Now),
	}
}

// utc makes a clock show the time at the precision that Postgres keeps.
func utc(now func() time.Time) func() time.Time {
	return func() time.Time { return now().UTC().Truncate(time.Microsecond) }
}

// Lease hands out charges that are due: at most one a team, its oldest open
// one, and none of a team that has one out, is paused, or whose balance at the
// sink is being read. With marks the worker says when it sends.
func (s *Service) Lease(ctx context.Context, worker string, limit int, hold time.Duration, marks bool) ([]Lease, error) {
	if err := checkLease(worker, limit, hold); err != nil {
		return nil, err
	}
	now := s.now()
	return s.store.Lease(ctx, LeaseQuery{Worker: worker, Max: limit, Now: now, Until: now.Add(hold), Marks: marks})
}

// checkLease refuses what no lease may have.
func checkLease(worker string, limit int, hold time.Duration) error {
	switch {
	case worker == "" || len(worker) > 200:
		return fault.Errorf(fault.Invalid, "worker is empty or longer than 200 bytes")
	case limit < 1 || limit > 100:
		return fault.Errorf(fault.Invalid, "the number wanted is not from 1 to 100")
	case hold < time.Second || hold > 10*time.Minute:
		return fault.Errorf(fault.Invalid, "lease_seconds is not from 1 to 600")
	}
	return nil
}

// MarkSent records that a leased charge is about to be sent, and under what.
func (s *Service) MarkSent(ctx context.Context, chargeID string, token int64, via Via) (Charge, error) {
	if chargeID == "" || token <= 0 {
		return Charge{}, fault.Errorf(fault.Invalid, "charge_id or lease_token is empty")
	}
	if err := via.check(); err != nil {
		return Charge{}, err
	}
	return s.store.MarkSent(ctx, chargeID, token, via, s.now())
}

// Renew prolongs a lease of a charge and returns its new end.
func (s *Service) Renew(ctx context.Context, chargeID string, token int64, hold time.Duration) (time.Time, error) {
	if chargeID == "" || token <= 0 {
		return time.Time{}, fault.Errorf(fault.Invalid, "charge_id or lease_token is empty")
	}
	if err := checkLease("worker", 1, hold); err != nil {
		return time.Time{}, err
	}
	until := s.now().Add(hold)
	return until, s.store.Renew(ctx, chargeID, token, until)
}

// Settle records the outcome of one attempt.
func (s *Service) Settle(ctx context.Context, st Settlement) (Charge, error) {
	if err := st.check(); err != nil {
		return Charge{}, err
	}
	return s.store.Settle(ctx, st, s.now())
}

// Balance tells where a team's money stands.
func (s *Service) Balance(ctx context.Context, teamID string) (Balance, error) {
	if teamID == "" {
		return Balance{}, fault.Errorf(fault.Invalid, "team_id is empty")
	}
	return s.store.Balance(ctx, teamID)
}

// Balances lists balances by team.
func (s *Service) Balances(ctx context.Context, q BalanceQuery) ([]Balance, error) {
	return s.store.Balances(ctx, q)
}

// Charges lists charges, newest first.
func (s *Service) Charges(ctx context.Context, q ChargeQuery) ([]Charge, error) {
	return s.store.Charges(ctx, q)
}

// Events lists events, newest first.
func (s *Service) Events(ctx context.Context, q EventQuery) ([]Event, error) {
	return s.store.Events(ctx, q)
}

// isDecimal says whether s is a decimal number of any precision, at most 40
// characters long.
func isDecimal(s string) bool {
	if len(s) > 40 {
		return false
	}
	digits := strings.Replace(strings.TrimPrefix(s, "-"), ".", "", 1)
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}
