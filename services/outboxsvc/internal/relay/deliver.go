package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

const (
	// leaseFor must be well over the time that a post and its settlement take,
	// so that nobody takes over a charge that is still being posted.
	leaseFor      = 60 * time.Second
	settleTimeout = 20 * time.Second
	// leaseMost is how many charges billing hands out at once.
	leaseMost = 100
	// lookAgain is how often a pass with posts under way asks what else is due,
	// so that a slow post of one team delays no other.
	lookAgain = time.Second
	// beginAgain is when a team's first charge that found no place has its next turn.
	beginAgain = 5 * time.Second
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
	created map[string]bool // teams that were made customers
	begins  chan struct{}   // a place for each first charge that is being prepared
}

// Deliver posts charges until none is due. Each that ends makes room for the
// next one, whosever it is. It stops early when the sink refuses us, is left
// alone, or billing does not answer; what was not posted stays due. Posts under
// way are finished and reported even when ctx ends, because a charge whose
// answer nobody heard is the costly kind. Within a process passes take turns.
func (s *Service) Deliver(ctx context.Context) (Pass, error) {
	if !s.configured() {
		return Pass{}, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return Pass{}, ctx.Err()
	}
	p := &pass{created: map[string]bool{}, begins: make(chan struct{}, max(1, s.opt.Concurrency/2))}
	err := s.deliver(ctx, p)
	if counted := s.recount(ctx); err == nil {
		err = counted
	}
	s.passed(err)
	return p.Pass, err
}

func (s *Service) deliver(ctx context.Context, p *pass) error {
	if err := s.admitted(ctx); err != nil {
		return err
	}
	done := make(chan error)
	running := 0
	var errs []error
	end := func(err error) {
		running--
		if err != nil {
			errs = append(errs, err)
		}
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		leased, err := s.start(ctx, p, running, done, len(errs) > 0)
		running += leased
		if err != nil {
			errs = append(errs, err)
		}
		switch {
		case running > 0:
			select {
			case err := <-done:
				end(err)
			case <-tick.C:
			}
		case leased == 0:
			return s.closing(ctx, errs)
		}
	}
}

// start leases as many charges as there is room for and begins to post them.
func (s *Service) start(ctx context.Context, p *pass, running int, done chan<- error, failed bool) (int, error) {
	why, _ := s.halted()
	free := s.breaker.limit(s.now(), s.opt.Concurrency) - running
	if failed || why != "" || free <= 0 || ended(ctx) {
		return 0, nil
	}
	leases, err := s.billing.Lease(ctx, s.opt.Worker, min(free, leaseMost), leaseFor)
	if err != nil {
		return 0, fmt.Errorf("lease charges: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // an attempt has timeouts of its own
	for _, l := range leases {
		go func() { done <- s.attempt(ctx, p, l) }()
	}
	return len(leases), nil
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// closing is the error of a pass that has nothing more to do.
func (s *Service) closing(ctx context.Context, errs []error) error {
	why, _ := s.halted()
	switch {
	case len(errs) > 0:
		return errors.Join(errs...)
	case ctx.Err() != nil:
		return ctx.Err()
	case why != "":
		return fault.Errorf(fault.Precondition, "nothing is posted: %s", why)
	}
	if until := s.breaker.openUntil(s.now()); !until.IsZero() {
		return fault.Errorf(fault.Unavailable, "posts of many teams failed; the sink is left alone until %s", until.UTC().Format(time.RFC3339))
	}
	return nil
}

// turn is what an attempt comes to.
type turn struct {
	Verdict
	wait time.Duration
	sent bool // to the sink
	// idle: the lease was not used, and billing may forget it.
	idle bool
	// lost: the lease is another worker's.
	lost bool
}

func (s *Service) attempt(ctx context.Context, p *pass, l Lease) error {
	l.Charge.Via = s.via(l.Charge)
	t := s.try(ctx, p, l)
	if t.lost {
		return nil
	}
	p.count(t)
	s.count(t)
	if t.Outcome != Unknown {
		s.doubtOver(l.Charge)
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err := s.billing.Settle(ctx, Settlement{
		ChargeID: l.Charge.ChargeID, Token: l.Token, Outcome: t.Outcome, Proof: t.Proof, Error: t.Error,
		RetryAfter: t.wait, AppliedNanoUSD: t.AppliedNanoUSD, SinkBalanceCredits: t.SinkBalanceCredits,
		NotSent: t.idle, KeyUsedUp: t.KeyUsedUp,
	})
	s.opt.Observe(Attempt{Charge: l.Charge, Verdict: t.Verdict, Sent: t.sent, Err: err})
	if err == nil && t.Proof == ProofLock {
		// The lock is a proof but for one hole at Autumn, which the usage shows.
		_ = s.Nudge(ctx, l.Charge.TeamID, "settled by a lock") // the nightly reading does it too
	}
	if err != nil && fault.KindOf(err) != fault.Conflict {
		return fmt.Errorf("settle charge %s: %w", l.Charge.ChargeID, err)
	}
	return nil // in a conflict the charge is another worker's now
}

// via is under what a charge is sent. One that may have been applied goes on under
// what it was sent under, whatever is configured by now: under another key or by
// another device the sink would apply it again.
func (s *Service) via(c Charge) Via {
	if c.Unsure && c.Via != (Via{}) {
		return c.Via
	}
	return s.sink.Via(c)
}

// knows says whether the sink has the device that a charge is sent by.
func (s *Service) knows(c Charge) bool {
	_, ok := s.sink.Dedupe(c.Via.Device)
	return ok
}

// claiming says whether the sink lets go of a charge's key apart from the work.
func (s *Service) claiming(c Charge) bool {
	kind, _ := s.sink.Dedupe(c.Via.Device)
	return kind == Claiming
}

// try posts a charge, unless there is a reason not to.
func (s *Service) try(ctx context.Context, p *pass, l Lease) turn {
	c := l.Charge
	why, _ := s.halted()
	switch {
	case why != "":
		v := Verdict{Outcome: NotApplied, Error: "not sent: " + why}
		if clashed(c) {
			v.Error = c.LastError // that it clashed must not be forgotten
		}
		return turn{Verdict: v, wait: s.jitter.wait(c.Attempts, 0), idle: true}
	case c.AmountNanoUSD <= 0 || c.AmountNanoUSD%money.MicroCredit != 0:
		return turn{Verdict: Verdict{Outcome: Refused, Error: "not sent: the amount is not whole micro-credits"}, idle: true}
	case !s.knows(c):
		v := s.inDoubt(c, handCheckAgain, undecided+"not sent: an attempt by "+c.Via.Device+", which is another sink's, may have been applied: look there for "+c.Via.Key+" and resolve it by hand")
		return turn{Verdict: v, wait: v.RetryAfter, idle: true}
	case s.mustVerify(c):
		v := s.verify(ctx, c, s.doubtSince(c))
		return turn{Verdict: v, wait: v.RetryAfter, idle: v.Outcome == Unknown}
	case c.Seq == 1 && !c.Unsure:
		if t, ok := s.first(ctx, p, c); !ok {
			return t
		}
	}
	return s.post(ctx, p, l)
}

// first prepares a team's first charge, which takes several calls and the slow pace
// of reads. While half of the places are taken by such, it is put back: teams that
// begin delay no other. Not ok: the turn says why it cannot be posted yet.
func (s *Service) first(ctx context.Context, p *pass, c Charge) (t turn, ok bool) {
	select {
	case p.begins <- struct{}{}:
		defer func() { <-p.begins }()
	default:
		return turn{Verdict: Verdict{Outcome: NotApplied, Error: "not sent: many teams have their first charge: it waits for its turn"}, wait: beginAgain, idle: true}, false
	}
	if err := s.begin(ctx, c); err != nil {
		return turn{
			Verdict: Verdict{Outcome: NotApplied, Error: "not sent: the team's balance must be read before its first charge: " + fault.Text(err)},
			wait:    s.jitter.wait(c.Attempts, 0), idle: true,
		}, false
	}
	return turn{}, true
}

// begin makes sure that there is a customer and that the books
// of its usage have begun: else a first charge that gets into doubt could never be
// verified, and what went wrong with it never be found.
func (s *Service) begin(ctx context.Context, c Charge) error {
	f, err := s.look(ctx, c)
	if err != nil || f.Class != noBalance {
		return err
	}
	if err := s.sink.CreateCustomer(ctx, c.TeamID); err != nil {
		return err // it may have been made all the same
	}
	_, err = s.look(ctx, c) // still no balance: there is no plan, as the post will show
	return err
}

// post says that it sends, sends, and does what has to be done before the next
// attempt.
func (s *Service) post(ctx context.Context, p *pass, l Lease) turn {
	c := l.Charge
	if err := s.posts.wait(ctx); err != nil {
		return turn{Verdict: Verdict{Outcome: NotApplied, Error: "not sent: " + err.Error()}, idle: true}
	}
	began := s.now()
	err := s.billing.MarkSent(ctx, c.ChargeID, l.Token, c.Via)
	switch {
	case fault.KindOf(err) == fault.Conflict:
		return turn{lost: true}
	case err != nil:
		// It may be marked, but nothing was sent.
		return turn{Verdict: Verdict{Outcome: NotApplied, Error: "not sent: " + fault.Text(err)}, wait: s.jitter.wait(c.Attempts, 0)}
	case s.now().Sub(began) > leaseFor/3:
		return turn{Verdict: Verdict{Outcome: NotApplied, Error: "not sent: billing answered too late for the lease"}}
	}
	a := s.sink.Post(ctx, c)
	kind, _ := s.sink.Dedupe(c.Via.Device)
	v := Classify(c, a, kind)
	s.breaker.record(s.now(), c.TeamID, v.Ill)
	t := turn{Verdict: v, sent: true}
	switch v.Do {
	case Halt:
		s.halt(v.Error)
	case CreateCustomer:
		if s.created(ctx, p, c.TeamID, &t.Verdict) {
			return t // at once
		}
	case Verify:
		t.Verdict = s.unprove(ctx, c, v)
		t.wait = max(t.RetryAfter, s.jitter.wait(c.Attempts, 0)) // it may say so again under another key
		return t
	case Nothing:
		if v.Proof == ProofLock {
			t.Verdict = s.lockProof(ctx, c, v)
		}
	}
	t.wait = s.jitter.wait(c.Attempts, v.RetryAfter)
	if t.Outcome == Unknown && kind == Claiming {
		t.wait = max(t.wait, foundAfter)
	}
	return t
}

// created makes the team a customer, once a pass: a sink that forgets customers
// must not keep us busy.
func (s *Service) created(ctx context.Context, p *pass, team string, v *Verdict) bool {
	if p.wasCreated(team) {
		return false
	}
	if err := s.sink.CreateCustomer(ctx, team); err != nil {
		v.Error += "; the customer could not be created: " + fault.Text(err)
		return false
	}
	p.create(team)
	return true
}

// unprove verifies at once a charge of which the sink said that it was done
// though we never did it. What cannot be decided stays in doubt, and is marked.
func (s *Service) unprove(ctx context.Context, c Charge, v Verdict) Verdict {
	c.LastError = v.Error
	verified := s.verify(ctx, c, s.now().Add(-foundAfter))
	if verified.Outcome == Unknown {
		v.RetryAfter = verified.RetryAfter
		return v
	}
	verified.Error = v.Error + "; " + verified.Error
	return verified
}

func (p *pass) count(t turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.sent {
		p.Attempts++
	}
	if t.Outcome == Applied {
		p.Applied++
	}
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
