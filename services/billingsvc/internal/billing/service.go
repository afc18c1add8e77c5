package billing

import (
	"context"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Desk is where charges are handed out and settled.
type Desk interface {
	Lease(ctx context.Context, q LeaseQuery) ([]Lease, error)
	// Settle locks the charge, applies the settlement to it and writes it and
	// the team's balance. NotFound when there is no such charge.
	Settle(ctx context.Context, s Settlement, now time.Time) (Charge, error)
	// Requeue makes those of the charges that are dead due at now and returns
	// them.
	Requeue(ctx context.Context, chargeIDs []string, now time.Time) ([]Charge, error)
}

// Shelf is where everything can be looked up.
type Shelf interface {
	// Balance returns zero sums for a team that was never billed.
	Balance(ctx context.Context, teamID string) (Balance, error)
	Charges(ctx context.Context, q ChargeQuery) ([]Charge, error)
	Events(ctx context.Context, q EventQuery) ([]Event, error)
	Audit(ctx context.Context) (Audit, error)
}

// Store is what the service keeps its data in.
type Store interface {
	Books
	Desk
	Shelf
}

// LeaseQuery asks for charges to post.
type LeaseQuery struct {
	Worker string
	Max    int
	Now    time.Time
	Until  time.Time
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

// Service is billing. Its methods may be called at the same time.
type Service struct {
	spend  SpendLog
	store  Store
	markup Markup
	turn   chan struct{} // held by the running sync
	now    func() time.Time
}

// New makes the service.
func New(spend SpendLog, store Store, markup Markup) *Service {
	return &Service{spend: spend, store: store, markup: markup, turn: make(chan struct{}, 1), now: utcNow}
}

// utcNow is the time at the precision that Postgres keeps.
func utcNow() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Lease hands out charges that are due: at most one a team, its oldest open
// one, and none of a team that has one out.
func (s *Service) Lease(ctx context.Context, worker string, limit int, hold time.Duration) ([]Lease, error) {
	switch {
	case worker == "" || len(worker) > 200:
		return nil, fault.Errorf(fault.Invalid, "worker is empty or longer than 200 bytes")
	case limit < 1 || limit > 100:
		return nil, fault.Errorf(fault.Invalid, "max_charges is not from 1 to 100")
	case hold < time.Second || hold > 10*time.Minute:
		return nil, fault.Errorf(fault.Invalid, "lease_seconds is not from 1 to 600")
	}
	now := s.now()
	return s.store.Lease(ctx, LeaseQuery{Worker: worker, Max: limit, Now: now, Until: now.Add(hold)})
}

// Settle records the outcome of one attempt.
func (s *Service) Settle(ctx context.Context, st Settlement) (Charge, error) {
	if err := st.check(); err != nil {
		return Charge{}, err
	}
	return s.store.Settle(ctx, st, s.now())
}

// Requeue makes dead charges due now and returns them. Ids of others are left
// alone.
func (s *Service) Requeue(ctx context.Context, chargeIDs []string) ([]Charge, error) {
	if len(chargeIDs) == 0 || len(chargeIDs) > 1000 {
		return nil, fault.Errorf(fault.Invalid, "charge_ids has %d ids, not 1 to 1000", len(chargeIDs))
	}
	return s.store.Requeue(ctx, chargeIDs, s.now())
}

// Balance tells where a team's money stands.
func (s *Service) Balance(ctx context.Context, teamID string) (Balance, error) {
	if teamID == "" {
		return Balance{}, fault.Errorf(fault.Invalid, "team_id is empty")
	}
	return s.store.Balance(ctx, teamID)
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

// TeamSums are a team's sums, each taken from the rows that it stands for.
type TeamSums struct {
	TeamID         string
	Events         int64
	CostNanoUSD    money.NanoUSD
	BilledNanoUSD  money.NanoUSD
	ChargedNanoUSD money.NanoUSD
	PostedNanoUSD  money.NanoUSD
	CarriedNanoUSD money.NanoUSD // billed − charged
}

// Audit is what the books say of themselves.
type Audit struct {
	Teams              []TeamSums
	Quarantined        int64
	QuarantinedNanoUSD money.NanoUSD
	// Faults are sentences; none: all sums agree.
	Faults []string
}

// Audit checks events, charges, balances and cursors against each other.
func (s *Service) Audit(ctx context.Context) (Audit, error) { return s.store.Audit(ctx) }
