package relay

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// TopUp is one purchase of credits that billing wants.
type TopUp struct {
	TopUpID       string // the key at the sink is made of it, for ever
	TeamID        string
	AmountNanoUSD money.NanoUSD
	Unsure        bool // it may have been bought already: look for it first
	LookOnly      bool // and do not ask for it again yet
	Attempts      int
	FirstSentAt   time.Time
	Counted       []string // invoices of the team's other top-ups
}

// TopUpLease is the right to ask for one top-up, once.
type TopUpLease struct {
	TopUp TopUp
	Token int64
}

// PurchaseOutcome is what the sink's answer to a purchase proves.
type PurchaseOutcome string

// The outcomes.
const (
	Paid     PurchaseOutcome = "succeeded"
	Declined PurchaseOutcome = "declined" // by the bank, or somebody has to act
	NotDone  PurchaseOutcome = "not_done" // certainly; try again
	Unsure   PurchaseOutcome = "unknown"
	Rejected PurchaseOutcome = "refused" // for good
)

// Purchase is the outcome of one attempt. Only an explicit "paid" is Paid.
type Purchase struct {
	Outcome    PurchaseOutcome
	Detail     string
	InvoiceID  string        // what it was paid with; empty: not, or not known
	RetryAfter time.Duration // what the sink asked for
}

// TopUpSettlement reports the outcome of a lease.
type TopUpSettlement struct {
	TopUpID    string
	Token      int64
	Outcome    PurchaseOutcome
	Detail     string
	InvoiceID  string
	RetryAfter time.Duration
}

// Till is the part of billing that decides on top-ups.
type Till interface {
	LeaseTopUps(ctx context.Context, worker string, limit int, hold time.Duration) ([]TopUpLease, error)
	SettleTopUp(ctx context.Context, s TopUpSettlement) error
}

const (
	topUpsOnce = 4
	// buyAgainAfter: a purchase whose answer was lost is looked for at the sink
	// first, and asked for again only when it had time to appear.
	buyAgainAfter = 10 * time.Minute
)

// TopUpAll asks the sink for the top-ups that billing wants, and returns how
// many it asked for.
func (s *Service) TopUpAll(ctx context.Context) (int, error) {
	if why, _ := s.halted(); !s.configured() || why != "" {
		return 0, nil
	}
	leases, err := s.billing.LeaseTopUps(ctx, s.opt.Worker, topUpsOnce, leaseFor)
	if err != nil {
		return 0, fmt.Errorf("lease top-ups: %w", err)
	}
	var g errgroup.Group
	for _, l := range leases {
		g.Go(func() error { return s.topUp(context.WithoutCancel(ctx), l) })
	}
	return len(leases), g.Wait()
}

// topUp asks for one top-up and reports what became of it. It gives no credits:
// those come with the balance that is read next.
func (s *Service) topUp(ctx context.Context, l TopUpLease) error {
	p := s.buy(ctx, l.TopUp)
	wait := s.jitter.wait(l.TopUp.Attempts, p.RetryAfter)
	if p.Outcome == Unsure {
		wait = max(wait, foundAfter)
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err := s.billing.SettleTopUp(ctx, TopUpSettlement{
		TopUpID: l.TopUp.TopUpID, Token: l.Token, Outcome: p.Outcome, Detail: p.Detail, InvoiceID: p.InvoiceID, RetryAfter: wait,
	})
	s.bought(l.TopUp, p, err)
	if err != nil && fault.KindOf(err) != fault.Conflict {
		return fmt.Errorf("settle top-up %s: %w", l.TopUp.TopUpID, err)
	}
	return nil
}

// buy refuses to ask again for what may have been bought too long ago for the
// sink to know the key.
func (s *Service) buy(ctx context.Context, t TopUp) Purchase {
	if t.Unsure && s.now().Sub(t.FirstSentAt) > resendWindow {
		return Purchase{Outcome: Unsure, RetryAfter: askedCap, Detail: "may have been bought too long ago to ask again: look at the sink's invoices and call ResolveTopUp"}
	}
	if err := s.reads.wait(ctx); err != nil {
		return Purchase{Outcome: NotDone, Detail: err.Error()}
	}
	t.LookOnly = t.Unsure && s.now().Sub(t.FirstSentAt) < buyAgainAfter
	return s.sink.Buy(ctx, t)
}
