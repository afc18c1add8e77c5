package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Mistake 9: what was refused comes back by a filter, seen beforehand and kept
// afterwards.
func TestMistake09DeadChargesComeBackByFilter(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 3)
	b.ledger.add(2, "zeta", 10)
	b.sync()
	for range 2 {
		for _, l := range b.lease(10) {
			b.settle(l, billing.Settlement{Outcome: billing.Refused, Error: "404 feature_not_found: " + l.Charge.TeamID})
		}
	}
	requeue := func(r billing.Requeue, want int) {
		t.Helper()
		r.Filter.TeamID, r.Filter.ErrorContains = "acme", "feature_not_found"
		out, err := b.svc.Requeue(t.Context(), r)
		if err != nil || len(out.Charges) != want {
			t.Errorf("Requeue(%+v) = %+v, %v, want %d", r, out, err, want)
		}
	}
	by := billing.By{Actor: "ops", Reason: "the feature is there now"}
	requeue(billing.Requeue{DryRun: true}, 2)
	requeue(billing.Requeue{By: by, Filter: billing.ChargeFilter{Max: 1}}, 1)
	requeue(billing.Requeue{By: by, Filter: billing.ChargeFilter{FrozenBefore: &noon}}, 0)
	requeue(billing.Requeue{By: by}, 1)
	requeue(billing.Requeue{By: by}, 0)
	ops, err := b.svc.Operations(t.Context(), billing.HistoryQuery{Action: "requeue", Limit: 10})
	if err != nil || len(ops) != 2 || ops[0].Reason != by.Reason {
		t.Errorf("operations = %+v, %v, want two", ops, err)
	}
	for name, r := range map[string]billing.Requeue{
		"nothing": {}, "a filter without a reason": {Filter: billing.ChargeFilter{TeamID: "acme"}},
		"ids and a filter": {ChargeIDs: []string{"a"}, Filter: billing.ChargeFilter{TeamID: "acme"}, By: by},
	} {
		if _, err := b.svc.Requeue(t.Context(), r); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: Requeue = %v, want Invalid", name, err)
		}
	}
}

// What the reason says of a doubt must survive: the outbox reads from it that the
// charge's key is of no use.
func TestARequeuedDoubtKeepsItsReason(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Unknown})
	dead := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Refused, Error: "unproved: 409", KeyUsedUp: true})
	r := billing.Requeue{ChargeIDs: []string{dead.ChargeID}}
	out, err := b.svc.Requeue(t.Context(), r)
	if err != nil || len(out.Charges) != 1 {
		t.Fatalf("Requeue = %+v, %v, want it due", out, err)
	}
	if c := out.Charges[0]; c.LastError != "unproved: 409" || c.State != billing.Ambiguous || c.KeyRound != 2 {
		t.Errorf("requeued = %+v, want it in doubt as before", c)
	}
}

func TestAnOldDoubtMustBeVerifiedBeforeItIsRequeued(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Unknown})
	dead := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Refused, Error: "400"})
	b.exec(`update billing.charges set first_sent_at = first_sent_at - interval '21 hours'`)
	r := billing.Requeue{ChargeIDs: []string{dead.ChargeID}, By: billing.By{Reason: "looked it up"}}
	out, err := b.svc.Requeue(t.Context(), r)
	if diff := cmp.Diff(billing.Requeued{Unverified: []string{dead.ChargeID}}, out); diff != "" || err != nil {
		t.Errorf("Requeue %v (-want +got):\n%s", err, diff)
	}
	r.VerifiedNotApplied = true
	out, err = b.svc.Requeue(t.Context(), r)
	if err != nil || len(out.Charges) != 1 || out.Charges[0].State != billing.Pending || out.Charges[0].FirstSentAt != nil {
		t.Errorf("Requeue = %+v, %v, want it as if it was never sent", out, err)
	}
	if l := b.leaseOne(); l.Charge.SentAttempts != 0 {
		t.Errorf("leased %+v, want no attempt before", l.Charge)
	}
}

// A lease that ran out before anything was sent leaves no doubt: what the sink
// then says of the key is not taken for an answer to us.
func TestOnlyWhatWasSentCountsAsAnAttempt(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	lease := func() billing.Lease {
		t.Helper()
		list, err := b.svc.Lease(t.Context(), "worker", 10, time.Minute, true)
		if err != nil || len(list) != 1 {
			t.Fatalf("Lease = %v, %v, want one", list, err)
		}
		return list[0]
	}
	lapse := func() { b.exec(`update billing.charges set lease_until = now() - interval '1 second'`) }
	lease()
	lapse()
	second := lease()
	if c := second.Charge; c.SentAttempts != 0 || c.State != billing.Pending || c.FirstSentAt != nil || c.Attempts != 2 {
		t.Errorf("leased again = %+v, want nothing sent", c)
	}
	for range 2 {
		c, err := b.svc.MarkSent(t.Context(), second.Charge.ChargeID, second.Token, billing.Via{})
		if err != nil || c.FirstSentAt == nil || c.SentAttempts != 0 {
			t.Errorf("MarkSent = %+v, %v, want it sent at an instant", c, err)
		}
	}
	if _, err := b.svc.Renew(t.Context(), second.Charge.ChargeID, second.Token, time.Minute); err != nil {
		t.Errorf("Renew = %v", err)
	}
	lapse()
	third := lease()
	if c := third.Charge; c.SentAttempts != 1 || c.State != billing.Ambiguous {
		t.Errorf("leased after it was sent = %+v, want one attempt, ambiguous", c)
	}
	if _, err := b.svc.MarkSent(t.Context(), second.Charge.ChargeID, second.Token, billing.Via{}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("MarkSent with the older lease = %v, want Conflict", err)
	}
	if _, err := b.svc.Renew(t.Context(), second.Charge.ChargeID, second.Token, time.Minute); fault.KindOf(err) != fault.Conflict {
		t.Errorf("Renew of the older lease = %v, want Conflict", err)
	}
	b.settle(third, billing.Settlement{Outcome: billing.NotApplied, NotSent: true})
	if c := lease().Charge; c.SentAttempts != 1 || c.State != billing.Ambiguous {
		t.Errorf("after a lease that was not used = %+v, want one attempt, ambiguous", c)
	}
}

func TestPausedTeamsAreBilledAndNotPosted(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	b.ledger.add(2, "zeta", 10)
	b.sync()
	by := billing.By{Actor: "ops", Reason: "restored from a backup"}
	pause := func(team string) {
		t.Helper()
		if _, err := b.svc.Pause(t.Context(), team, by); err != nil {
			t.Fatal(err)
		}
	}
	resume := func(team string, want bool) {
		t.Helper()
		if ok, err := b.svc.Resume(t.Context(), team, by); err != nil || ok != want {
			t.Errorf("Resume = %t, %v, want %t", ok, err, want)
		}
	}
	pause("acme")
	pause("")
	if leases := b.lease(10); len(leases) != 0 {
		t.Errorf("leased %v while all is paused", leases)
	}
	resume("", true)
	resume("", false)
	if l := b.leaseOne(); l.Charge.TeamID != "zeta" {
		t.Errorf("leased %+v, want zeta's: acme is paused", l.Charge)
	}
	resume("acme", true)
	if l := b.leaseOne(); l.Charge.TeamID != "acme" {
		t.Errorf("leased %+v, want acme's", l.Charge)
	}
	list, err := b.svc.Pauses(t.Context())
	ops, err2 := b.svc.Operations(t.Context(), billing.HistoryQuery{Limit: 10})
	if err != nil || err2 != nil || len(list) != 0 || len(ops) != 4 {
		t.Errorf("pauses %v, %v and operations %v, %v, want none and four", list, err, ops, err2)
	}
}

func TestChargesHaveLimits(t *testing.T) {
	t.Parallel()
	b := newBench(t, 100)
	b.opt.Rules.Limits = billing.Limits{Events: 4, Amount: 100, ApproveAbove: 500}
	b.opt.Batch = 100
	b.svc = b.replica()
	for _, cost := range []money.NanoUSD{1, 1, 1, 1, 1, 20, 15, 200, 1} {
		b.ledger.add(1, "acme", cost)
	}
	b.sync()
	charges, err := b.svc.Charges(t.Context(), billing.ChargeQuery{TeamID: "acme", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	bySeq := map[int64]string{}
	for _, c := range charges {
		bySeq[c.Seq] = string(c.State) + " " + c.AmountNanoUSD.Credits()
	}
	want := map[int64]string{
		1: "pending 0.000001", // 12 of four events, 2 are carried
		2: "pending 0.000011", // 2 + 3 + 60 + 45
		3: "dead 0.00006",     // 600: above 500
	}
	if diff := cmp.Diff(want, bySeq); diff != "" {
		t.Errorf("charges (-want +got):\n%s", diff)
	}
	b.sound()
}

// What a charge in doubt was sent under is kept for its next attempt, whoever makes
// it: under another key or by another device the sink would not know it.
func TestWhatAChargeInDoubtWasSentUnderIsKept(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	first, other := billing.Via{Device: "autumn/lock", Key: "one"}, billing.Via{Device: "autumn/idempotency_key", Key: "two"}
	send := func(via billing.Via, out billing.Settlement) billing.Via {
		t.Helper()
		list, err := b.svc.Lease(t.Context(), "worker", 10, time.Minute, true)
		if err != nil || len(list) != 1 {
			t.Fatalf("Lease = %v, %v, want one", list, err)
		}
		if _, err := b.svc.MarkSent(t.Context(), list[0].Charge.ChargeID, list[0].Token, via); err != nil {
			t.Fatal(err)
		}
		c := b.settle(list[0], out)
		return billing.Via{Device: c.SentDevice, Key: c.SentKey}
	}
	if got := send(other, billing.Settlement{Outcome: billing.NotApplied}); got != other {
		t.Errorf("after an attempt that was not applied: %+v", got)
	}
	if got := send(first, billing.Settlement{Outcome: billing.Unknown}); got != first {
		t.Errorf("after one that nobody answered: %+v, want what that one was sent under", got)
	}
	if got := send(other, billing.Settlement{Outcome: billing.NotApplied}); got != first {
		t.Errorf("after another while there is a doubt: %+v, want what the doubtful one was sent under", got)
	}
	if got := send(other, billing.Settlement{Outcome: billing.NeverApplied}); got != (billing.Via{}) {
		t.Errorf("after it was verified that none was applied: %+v, want nothing", got)
	}
	_, err := b.svc.MarkSent(t.Context(), "charge", 1, billing.Via{Device: "autumn/lock"})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("MarkSent with a device and no key = %v, want Invalid", err)
	}
}
