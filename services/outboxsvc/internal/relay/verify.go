package relay

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

const (
	// resendWindow is how long after its first attempt a charge in doubt may be
	// sent again. A collapsing sink remembers what it applied for 24 hours.
	resendWindow = 20 * time.Hour

	// foundAfter is when the sink's list of events has caught up, and
	// settledAfter when nothing that was under way can still be applied: a slow
	// answer, or a queue.
	foundAfter   = 30 * time.Second
	settledAfter = 10 * time.Minute
	// handCheckAgain is how often a charge that only a human can settle is
	// looked at.
	handCheckAgain = 5 * time.Minute
	// customerSlack is how much the sink's clock may be ahead of ours, when a
	// customer is older than a charge that was sent to it.
	customerSlack = time.Minute
	// undecided begins the error of a charge in doubt that nothing here can decide,
	// as things are.
	undecided = "undecided: "
	// byHand begins the reason of a dead charge that may have been applied.
	byHand = "may have been applied: must be verified by hand"
)

// doubt is when this process first saw that a charge may have been applied.
// Another attempt since would have moved the first one.
type doubt struct {
	since     time.Time
	firstSent time.Time
}

// doubtSince notes that a charge is in doubt and tells since when at the latest.
func (s *Service) doubtSince(c Charge) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.doubts[c.ChargeID]
	if !ok || !d.firstSent.Equal(c.FirstSentAt) {
		d = doubt{s.now(), c.FirstSentAt}
		s.doubts[c.ChargeID] = d
	}
	return d.since
}

func (s *Service) doubtOver(c Charge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubts, c.ChargeID)
}

// recount reads from billing which charges are in doubt, since other replicas and
// humans decide too: counts those that nothing here can decide, and forgets what
// this process knew of others.
func (s *Service) recount(ctx context.Context) error {
	s.mu.Lock()
	known := slices.Collect(maps.Keys(s.doubts))
	s.mu.Unlock()
	charges, err := s.billing.InDoubt(ctx)
	if err != nil {
		return fmt.Errorf("count charges in doubt: %w", err)
	}
	still, count := map[string]bool{}, int64(0)
	for _, c := range charges {
		still[c.ChargeID] = true
		if strings.HasPrefix(c.LastError, undecided) || clashed(c) {
			count++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Undecided = count
	for _, id := range known {
		if !still[id] {
			delete(s.doubts, id)
		}
	}
	return nil
}

// mustVerify says whether a charge may have been applied and must not simply be
// sent again.
func (s *Service) mustVerify(c Charge) bool {
	return c.Unsure && (s.claiming(c) || clashed(c) || s.now().Sub(c.FirstSentAt) > resendWindow)
}

func clashed(c Charge) bool { return strings.HasPrefix(c.LastError, clash) }

// verify finds out whether a leased charge in doubt was applied, without sending
// it. The sink's list of events proves that it was; what the team has used at
// the sink, compared with billing's books, proves either.
func (s *Service) verify(ctx context.Context, c Charge, since time.Time) Verdict {
	if wait := foundAfter - s.now().Sub(since); wait > 0 {
		why := "an attempt may have been applied; it is verified when the sink has had time"
		if strings.HasPrefix(c.LastError, undecided) {
			why = c.LastError // another replica has looked
		}
		return s.inDoubt(c, wait, why)
	}
	if applied, held, err := s.held(ctx, c); err == nil && held {
		return eventProof(c, applied)
	}
	f, err := s.look(ctx, c)
	switch {
	case err != nil:
		return s.inDoubt(c, s.jitter.wait(c.Attempts, 0), "it cannot be verified now: "+fault.Cause(err))
	case f.tells() && !c.FirstSentAt.IsZero() && f.CustomerSince.After(c.FirstSentAt.Add(customerSlack)):
		return undecidable(c, "the sink's events do not have it, and the customer was made anew after it was sent")
	case f.tells() && near(f, c.AmountNanoUSD, c.AmountNanoUSD):
		return Verdict{Outcome: Applied, Proof: ProofUsage}
	case f.tells() && near(f, 0, c.AmountNanoUSD):
		return s.absent(ctx, c, since)
	case f.tells() && s.now().Sub(since) > settledAfter:
		// The books are right but for less than the sink's arithmetic can hold, and
		// so is the charge.
		return undecidable(c, "it is too small for the sink's usage to show")
	}
	if f.Class == noBalance {
		// A customer that is gone has taken its usage along. With a new one there
		// is something to go on with.
		_ = s.sink.CreateCustomer(ctx, c.TeamID) // else the next look tries again
	}
	return s.inDoubt(c, handCheckAgain, fmt.Sprintf(
		undecided+"not verified so far: the sink's events do not have it, and its usage (%s) does not tell", f.Class))
}

// eventProof is what an event proves that deducted something.
func eventProof(c Charge, applied money.NanoUSD) Verdict {
	v := Verdict{Outcome: Applied, Proof: ProofEvents}
	if applied < c.AmountNanoUSD {
		v.Outcome, v.AppliedNanoUSD = PartlyApplied, applied
		v.Error = fmt.Sprintf("deducted %s of %s credits: a spend limit, or overage is not allowed", applied.Credits(), c.AmountNanoUSD.Credits())
	}
	return v
}

// lockProof looks how much was applied under a lock that is taken: the answer
// that said so was lost. Where the list of events has nothing of it, or cannot be
// read for long, it is taken as all, and the team is reconciled.
func (s *Service) lockProof(ctx context.Context, c Charge, v Verdict) Verdict {
	applied, held, err := s.held(ctx, c)
	switch {
	case err != nil && c.Attempts < stubborn:
		return Verdict{Outcome: Unknown, Error: "applied, as the lock shows; how much of it cannot be read now"}
	case err == nil && held && applied < c.AmountNanoUSD:
		return eventProof(c, applied)
	}
	return v
}

// absent judges a charge that the team's usage at the sink does not hold. That
// proves something only when the books of it began before the charge was sent,
// and when nothing is under way any more.
func (s *Service) absent(ctx context.Context, c Charge, since time.Time) Verdict {
	if wait := settledAfter - s.now().Sub(since); wait > 0 && !clashed(c) {
		return s.inDoubt(c, min(wait, settledAfter/2), "not applied so far; an attempt may still be under way at the sink")
	}
	began := c.FirstSentAt
	if began.IsZero() {
		began = s.now() // it is being sent for the first time
	}
	rebased, err := s.billing.Rebased(ctx, c.TeamID, began)
	switch {
	case err != nil:
		return s.inDoubt(c, s.jitter.wait(c.Attempts, 0), "it cannot be verified now: "+fault.Cause(err))
	case rebased:
		return undecidable(c, "the sink's events do not have it, and a new cycle or a new beginning of the books hides whether its usage does")
	}
	return Verdict{
		Outcome: NeverApplied, KeyUsedUp: s.claiming(c) || clashed(c),
		Error: "never applied: what the team has used at the sink shows it",
	}
}

// undecidable leaves a charge that may have been applied to a human. Of one that
// clashed the reason goes on saying so, and its key is of no use any more.
func undecidable(c Charge, why string) Verdict {
	v := Verdict{Outcome: Refused, Error: byHand + ": " + why}
	if clashed(c) {
		v.Error, v.KeyUsedUp = clash+v.Error, true
	}
	return v
}

// inDoubt leaves a charge as it is for a while.
func (s *Service) inDoubt(c Charge, wait time.Duration, why string) Verdict {
	if clashed(c) {
		why = c.LastError
	}
	return Verdict{Outcome: Unknown, Error: why, RetryAfter: wait}
}

// look compares what the team has used at the sink with the books, while its
// only charge under way is ours and still.
func (s *Service) look(ctx context.Context, c Charge) (Finding, error) {
	leases, err := s.billing.LeaseTeams(ctx, s.opt.Worker, []string{c.TeamID}, 1, readFor)
	if err != nil {
		return Finding{}, fmt.Errorf("lease team: %w", err)
	}
	if len(leases) == 0 {
		return Finding{}, fault.Errorf(fault.Unavailable, "the team is being read by another worker")
	}
	f, err := s.report(ctx, leases[0], nil)
	s.reconciled(Reconciled{Finding: f, Err: err})
	return f, err
}

// noBalance is the class of a team that the sink has no balance of.
const noBalance = "no_balance"

// tells says whether the usage of a finding is one that the books follow. After
// a reset, or with a drift that nothing explains, it says nothing of one charge.
func (f Finding) tells() bool {
	switch f.Class {
	case "none", "rounding", "grant", "grant_removed", "in_flight", "doubt_applied":
		return true
	}
	return false
}

// near says whether usage went ahead of the books by want: within what the
// sink's arithmetic can lose, and well within the amount that is in question.
func near(f Finding, want, amount money.NanoUSD) bool {
	off := max(f.UsageDrift-want, want-f.UsageDrift)
	return off <= min(10*money.MicroCredit+f.Used/100_000_000_000, amount/4)
}
