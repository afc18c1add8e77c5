package store_test

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

var looked = billing.By{Actor: "ops", Reason: "Autumn's dashboard has it"}

// resolve resolves a charge and compares where it is then.
func (b *bench) resolve(r billing.Resolve, state billing.State, posted money.NanoUSD) billing.Charge {
	b.t.Helper()
	r.By = looked
	c, err := b.svc.Resolve(b.t.Context(), r)
	if err != nil || c.State != state {
		b.t.Errorf("Resolve(%+v) = %s, %v, want %s", r, c.State, err, state)
	}
	if got := b.balance("acme").PostedNanoUSD; got != posted {
		b.t.Errorf("posted after Resolve(%+v) = %d, want %d", r, got, posted)
	}
	return c
}

func (b *bench) resolutions() int {
	b.t.Helper()
	ops, err := b.svc.Operations(b.t.Context(), billing.HistoryQuery{TeamID: "acme", Action: "resolve", Limit: 10})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, op := range ops {
		if op.Actor != looked.Actor || op.Reason != looked.Reason {
			b.t.Errorf("operation = %+v, want who and why", op)
		}
	}
	return len(ops)
}

func taken(n money.NanoUSD) *money.NanoUSD { return &n }

func TestAChargeInDoubtIsSettledByHand(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 3) // 30, 60, 90
	first := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Unknown, Error: "no answer in time"})
	b.resolve(billing.Resolve{ChargeID: first.ChargeID, Applied: taken(0), DryRun: true}, billing.Posted, 0)
	if n := b.resolutions(); n != 0 {
		t.Errorf("a dry run left %d operations", n)
	}
	c := b.resolve(billing.Resolve{ChargeID: first.ChargeID, Applied: taken(0)}, billing.Posted, 30)
	if c.Proof != billing.ProofByHand || c.SettledAt == nil {
		t.Errorf("resolved = %+v, want it settled by hand", c)
	}
	dead := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Refused, Error: "400"})
	if c = b.resolve(billing.Resolve{ChargeID: dead.ChargeID, Applied: taken(40)}, billing.Short, 70); c.ShortfallNanoUSD != 20 {
		t.Errorf("resolved in part = %+v, want a shortfall of 20", c)
	}
	third := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Unknown})
	c = b.resolve(billing.Resolve{ChargeID: third.ChargeID, NewKey: true}, billing.Pending, 70)
	if c.Unsure || c.FirstSentAt != nil || c.KeyRound != 2 || c.SentAttempts != 0 {
		t.Errorf("resolved as not applied = %+v, want it as if it was never sent, under another key", c)
	}
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	if n := b.resolutions(); n != 3 {
		t.Errorf("%d operations were kept, want 3", n)
	}
	b.sound()
}

// A team whose charge was resolved is read at once: the sink shows whether it was
// right.
func TestAResolutionMakesItsTeamDue(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	c := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Unknown})
	b.exec(`update billing.balances set reconcile_due_at = now() + interval '1 day'`)
	b.resolve(billing.Resolve{ChargeID: c.ChargeID, Applied: taken(0)}, billing.Posted, 30)
	due, err := b.svc.LeaseReconciliations(t.Context(), "worker", nil, 10, time.Minute)
	if err != nil || len(due) != 1 {
		t.Errorf("due = %v, %v, want acme", due, err)
	}
}

func TestWhatIsNotInDoubtIsNotResolved(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 2)
	l := b.leaseOne()
	try := func(r billing.Resolve, by billing.By, want fault.Kind) {
		t.Helper()
		r.By = by
		if _, err := b.svc.Resolve(t.Context(), r); fault.KindOf(err) != want {
			t.Errorf("Resolve(%+v) = %v, want %v", r, err, want)
		}
	}
	id := l.Charge.ChargeID
	try(billing.Resolve{ChargeID: id, Applied: taken(0)}, looked, fault.Conflict) // under way
	b.settle(l, billing.Settlement{Outcome: billing.NotApplied, RetryAfter: time.Hour})
	try(billing.Resolve{ChargeID: id, Applied: taken(0)}, looked, fault.Precondition)
	try(billing.Resolve{ChargeID: "01980000-0000-7000-8000-000000000000"}, looked, fault.NotFound)
	try(billing.Resolve{}, looked, fault.Invalid)
	try(billing.Resolve{ChargeID: id}, billing.By{Actor: "ops"}, fault.Invalid)
	try(billing.Resolve{ChargeID: id, Applied: taken(-1)}, looked, fault.Invalid)
	try(billing.Resolve{ChargeID: id, Applied: taken(1), NewKey: true}, looked, fault.Invalid)
	b.exec(`update billing.charges set due_at = now() where seq = 1`)
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Unknown})
	try(billing.Resolve{ChargeID: id, Applied: taken(31)}, looked, fault.Invalid)
}

// An attempt that lasted longer than its lease may still tell its outcome, but
// not after somebody has settled the charge.
func TestALateOutcomeDoesNotUndoAResolution(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	l := b.leaseOne()
	b.exec(`update billing.charges set lease_until = now() - interval '1 second'`)
	b.resolve(billing.Resolve{ChargeID: l.Charge.ChargeID, Applied: taken(0)}, billing.Posted, 30)
	late := billing.Settlement{ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.NotApplied}
	if _, err := b.svc.Settle(t.Context(), late); fault.KindOf(err) != fault.Conflict {
		t.Errorf("Settle after it was resolved = %v, want Conflict", err)
	}
	late.Outcome, late.Proof = billing.Applied, "deductions"
	if _, err := b.svc.Settle(t.Context(), late); err != nil || b.balance("acme").PostedNanoUSD != 30 {
		t.Errorf("Settle that agrees = %v with %d posted, want 30", err, b.balance("acme").PostedNanoUSD)
	}
	b.sound()
}
