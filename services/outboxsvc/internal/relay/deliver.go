package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

const (
	// leaseFor must be well over the time that a post and its settlement take,
	// so that nobody takes over a charge that is still being posted.
	leaseFor      = 60 * time.Second
	settleTimeout = 20 * time.Second

	// resendWindow is how long after its first attempt an ambiguous charge may
	// be sent again. The sink remembers what it applied for 24 hours.
	resendWindow = 20 * time.Hour
	// handCheckAgain is how often an ambiguous charge beyond that is looked at.
	handCheckAgain = 5 * time.Minute
)

// Pass tells what a pass did.
type Pass struct {
	Attempts int64 // charges that it tried to post
	Applied  int64 // charges that it proved to be applied
}

// pass is a pass at work.
type pass struct {
	mu sync.Mutex
	Pass
	halted  string          // why nothing more is posted; empty: go on
	created map[string]bool // teams that were made customers
}

// Deliver posts charges until none is due. It stops early when the sink refuses
// us or billing does not answer; what was not posted stays due. Posts under way
// are finished and reported even when ctx ends, because a charge whose answer
// nobody heard is the costly kind. Within a process passes take turns.
func (s *Service) Deliver(ctx context.Context) (Pass, error) {
	if s.sink == nil {
		return Pass{}, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return Pass{}, ctx.Err()
	}
	p := &pass{created: map[string]bool{}}
	err := s.deliver(ctx, p)
	s.passed(err)
	return p.Pass, err
}

func (s *Service) deliver(ctx context.Context, p *pass) error {
	if err := s.sink.Ready(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		leases, err := s.charges.Lease(ctx, s.opt.Worker, s.opt.Concurrency, leaseFor)
		if err != nil {
			return fmt.Errorf("lease charges: %w", err)
		}
		if len(leases) == 0 {
			return nil
		}
		if err := s.deliverAll(ctx, p, leases); err != nil {
			return err
		}
		if p.halted != "" {
			return fault.Errorf(fault.Precondition, "nothing more is posted until the next pass: %s", p.halted)
		}
	}
	return ctx.Err()
}

// deliverAll attempts leased charges side by side. Each is of another team.
func (s *Service) deliverAll(ctx context.Context, p *pass, leases []Lease) error {
	ctx = context.WithoutCancel(ctx) // an attempt has timeouts of its own
	var g errgroup.Group
	g.SetLimit(s.opt.Concurrency)
	errs := make([]error, len(leases))
	for i, l := range leases {
		g.Go(func() error {
			errs[i] = s.attempt(ctx, p, l)
			return nil
		})
	}
	g.Wait() //nolint:errcheck // the errors are in errs: one must not end the others
	return errors.Join(errs...)
}

func (s *Service) attempt(ctx context.Context, p *pass, l Lease) error {
	v, wait, sent := s.try(ctx, p, l.Charge)
	p.count(v, sent)
	if sent {
		s.count(v.Outcome)
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err := s.charges.Settle(ctx, Settlement{
		ChargeID: l.Charge.ChargeID, Token: l.Token, Outcome: v.Outcome, Proof: v.Proof, Error: v.Error,
		RetryAfter: wait, AppliedNanoUSD: v.AppliedNanoUSD, SinkBalanceCredits: v.SinkBalanceCredits,
	})
	s.opt.Observe(Attempt{Charge: l.Charge, Verdict: v, Sent: sent, Err: err})
	if err != nil && fault.KindOf(err) != fault.Conflict {
		return fmt.Errorf("settle charge %s: %w", l.Charge.ChargeID, err)
	}
	return nil // in a conflict the charge is another worker's now
}

// try posts a charge, unless there is a reason not to, and does what has to be
// done before the next attempt. It returns the time to wait until then.
func (s *Service) try(ctx context.Context, p *pass, c Charge) (v Verdict, wait time.Duration, sent bool) {
	switch {
	case p.stopped() != "":
		return Verdict{Outcome: NotApplied, Error: "not sent: " + p.stopped()}, s.jitter.wait(c.Attempts, 0), false
	case c.AmountNanoUSD <= 0 || c.AmountNanoUSD%money.MicroCredit != 0:
		return Verdict{Outcome: Refused, Error: "not sent: the amount is not whole micro-credits"}, 0, false
	case c.Ambiguous && s.now().Sub(c.FirstSentAt) > resendWindow:
		return Verdict{Outcome: Unknown, Error: fmt.Sprintf(
			"not sent: an attempt may have been applied and the first was over %s ago; the charge must be verified by hand",
			resendWindow)}, handCheckAgain, false
	}
	v = Classify(c, s.sink.Post(ctx, c))
	switch v.Do {
	case Halt:
		p.halt(v.Error)
	case CreateCustomer:
		// Once a pass: a sink that forgets customers must not keep us busy.
		if p.wasCreated(c.TeamID) {
			break
		}
		if err := s.sink.CreateCustomer(ctx, c.TeamID); err != nil {
			v.Error += "; the customer could not be created: " + fault.Text(err)
			break
		}
		p.create(c.TeamID)
		return v, 0, true
	case Nothing:
	}
	return v, s.jitter.wait(c.Attempts, v.RetryAfter), true
}

func (p *pass) count(v Verdict, sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent {
		p.Attempts++
	}
	if v.Outcome == Applied {
		p.Applied++
	}
}

func (p *pass) halt(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.halted = why
}

func (p *pass) stopped() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.halted
}

func (p *pass) create(team string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.created[team] = true
}

func (p *pass) wasCreated(team string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.created[team]
}
