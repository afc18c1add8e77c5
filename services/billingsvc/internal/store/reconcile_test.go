package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Mistake 4: usage that the sink has not heard of is not given back to the team.
func TestMistake04ReconciliationDoesNotGiveUnpostedUsageBack(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 10)
	b.sync()
	for range 2 {
		if rec := b.report("acme", billing.Sighting{Balance: 1000}); rec.UnconfirmedNanoUSD != 30 || rec.ShadowAfterNanoUSD != 970 || !rec.Fixed {
			t.Errorf("reconciliation = %+v, want 30 unconfirmed and a shadow of 970", rec)
		}
	}
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	if rec := b.report("acme", billing.Sighting{Balance: 970, Usage: 30}); rec.Class != billing.ClassNone || rec.ShadowAfterNanoUSD != 970 {
		t.Errorf("reconciliation = %+v, want no drift and the same shadow", rec)
	}
	b.sound()
}

func TestAnAmbiguousChargeIsSettledByTheSinksUsage(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 100_000)
	b.sync()
	b.report("acme", billing.Sighting{NoBalance: true})
	b.report("acme", billing.Sighting{Balance: 1_000_000})
	l := b.leaseOne()
	b.settle(l, billing.Settlement{Outcome: billing.Unknown, Error: "timeout"})
	if rec := b.report("acme", billing.Sighting{Balance: 1_000_000}); rec.Class != billing.ClassNone {
		t.Errorf("reconciliation = %+v, want none: it was not applied yet", rec)
	}
	rec := b.report("acme", billing.Sighting{Balance: 700_000, Usage: 300_000})
	if rec.Class != billing.ClassDoubtApplied || !cmp.Equal(rec.ChargeIDs, []string{l.Charge.ChargeID}) || !rec.Fixed {
		t.Errorf("reconciliation = %+v, want the ambiguous charge applied", rec)
	}
	charges, err := b.svc.Charges(t.Context(), billing.ChargeQuery{TeamID: "acme", Limit: 1})
	if err != nil || charges[0].State != billing.Posted || charges[0].Proof != billing.ProofUsageDelta {
		t.Errorf("charges = %+v, %v, want it posted by the usage", charges, err)
	}
	b.state("acme", billing.Active, 700_000)
	b.sound()
}

func TestAChargeInTheSinksListIsSettledByIt(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	l := b.leaseOne()
	b.settle(l, billing.Settlement{Outcome: billing.Unknown, Error: "timeout"})
	b.report("acme", billing.Sighting{NoBalance: true, Found: []string{l.Charge.ChargeID, "another"}})
	if got := b.balance("acme"); got.PostedNanoUSD != 30 {
		t.Errorf("posted %d, want 30", got.PostedNanoUSD)
	}
	// The worker that sent it comes late.
	_, err := b.svc.Settle(t.Context(), billing.Settlement{
		ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.Refused,
	})
	if fault.KindOf(err) != fault.Conflict {
		t.Errorf("Settle afterwards = %v, want Conflict", err)
	}
	b.sound()
}

// A charge that was in doubt when the books of the sink began is not taken for
// one that the sink lost when it turns out to have been applied before.
func TestTheBeginningMayHoldAChargeInDoubt(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 100_000)
	b.sync()
	l := b.leaseOne()
	b.settle(l, billing.Settlement{Outcome: billing.Unknown, Error: "timeout"})
	b.report("acme", billing.Sighting{Balance: 700_000, Usage: 300_000})
	b.state("acme", billing.Active, 400_000) // on the safe side
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "lock_already_exists"})
	rec := b.report("acme", billing.Sighting{Balance: 700_000, Usage: 300_000})
	if rec.Class != billing.ClassBaseline || !rec.Fixed {
		t.Errorf("reconciliation = %+v, want that the beginning held it", rec)
	}
	b.state("acme", billing.Active, 700_000)
	if rec := b.report("acme", billing.Sighting{Balance: 700_000, Usage: 300_000}); rec.Class != billing.ClassNone {
		t.Errorf("the next reconciliation = %+v, want none", rec)
	}
	b.sound()
}

func TestADriftThatIsNotProvedIsKeptNamedAndCanBeAccepted(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 10_000_000)
	b.sync()
	b.report("acme", billing.Sighting{Balance: 90_000_000})
	l := b.leaseOne()
	b.settle(l, billing.Settlement{Outcome: billing.Applied, Proof: "lock_already_exists"})
	twice := billing.Sighting{Balance: 30_000_000, Usage: 60_000_000}
	rec := b.report("acme", twice)
	if rec.Class != billing.ClassDoubleCharge || rec.Fixed || !rec.Alarm || !cmp.Equal(rec.ChargeIDs, []string{l.Charge.ChargeID}) {
		t.Errorf("reconciliation = %+v, want the charge named and an alarm", rec)
	}
	b.state("acme", billing.Active, 60_000_000)
	if got := b.balance("acme").OpenDriftNanoUSD; got != -30_000_000 {
		t.Errorf("open drift = %d, want -30,000,000", got)
	}
	by := billing.By{Actor: "ops", Reason: "the customer agreed"}
	if _, err := b.svc.AcceptDrift(t.Context(), "acme", "an older one", by); fault.KindOf(err) != fault.Conflict {
		t.Errorf("AcceptDrift of another = %v, want Conflict", err)
	}
	if _, err := b.svc.AcceptDrift(t.Context(), "acme", rec.ReconciliationID, by); err != nil {
		t.Fatal(err)
	}
	b.state("acme", billing.Active, 30_000_000)
	if rec := b.report("acme", twice); rec.Class != billing.ClassNone {
		t.Errorf("the next reconciliation = %+v, want none", rec)
	}
	faults, err := b.svc.Reconciliations(t.Context(), billing.HistoryQuery{TeamID: "acme", OnlyFaults: true, Limit: 10})
	if err != nil || len(faults) != 1 || faults[0].ReconciliationID != rec.ReconciliationID {
		t.Errorf("faults = %+v, %v, want the one that was accepted", faults, err)
	}
	b.sound()
}

// TestAnAcceptedDriftBeginsWithWhatTheSightingHeld accepts a drift of a sighting during
// which a charge was settled that is not in it.
func TestAnAcceptedDriftBeginsWithWhatTheSightingHeld(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	by := billing.By{Actor: "ops", Reason: "the customer agreed"}
	b.ledger.add(1, "acme", 10_000_000)
	b.sync()
	b.report("acme", billing.Sighting{Balance: 90_000_000})
	charge := b.leaseOne()
	reading := func() billing.ReconcileLease {
		t.Helper()
		leases, err := b.svc.LeaseReconciliations(t.Context(), "worker", []string{"acme"}, 1, time.Minute)
		if err != nil || len(leases) != 1 {
			t.Fatalf("LeaseReconciliations = %+v, %v, want one", leases, err)
		}
		return leases[0]
	}
	lease := reading()
	b.settle(charge, billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	strange := billing.Sighting{Balance: 83_000_000, Usage: 7_000_000} // without the charge's 30
	rec, _, err := b.svc.Report(t.Context(), billing.Report{TeamID: "acme", Token: lease.Token, Sighting: strange})
	if err != nil || rec.Class != billing.ClassUnexplained {
		t.Fatalf("reconciliation = %+v, %v, want usage that is none of ours", rec, err)
	}
	if err := b.svc.Release(t.Context(), "acme", reading().Token, 0); err != nil { // the sink could not be read again
		t.Fatal(err)
	}
	if _, err := b.svc.AcceptDrift(t.Context(), "acme", rec.ReconciliationID, by); err != nil {
		t.Fatal(err)
	}
	b.state("acme", billing.Active, 53_000_000)
	if rec := b.report("acme", billing.Sighting{Balance: 53_000_000, Usage: 37_000_000}); rec.Class != billing.ClassNone {
		t.Errorf("the next reconciliation = %+v, want none", rec)
	}
	// Had the sighting held the charge after all, the next one would show it.
	if rec := b.report("acme", billing.Sighting{Balance: 83_000_000, Usage: 7_000_000}); rec.Class != billing.ClassBaseline || !rec.Fixed {
		t.Errorf("the next reconciliation but one = %+v, want that the beginning held the charge", rec)
	}
	b.sound()
}

func TestReconciliationsAreFencedAndRepeatable(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	lease := func() billing.ReconcileLease {
		t.Helper()
		list, err := b.svc.LeaseReconciliations(t.Context(), "worker", nil, 10, time.Minute)
		if err != nil || len(list) != 1 {
			t.Fatalf("LeaseReconciliations = %v, %v, want one", list, err)
		}
		return list[0]
	}
	first := lease()
	if list, err := b.svc.LeaseReconciliations(t.Context(), "worker", nil, 10, time.Minute); err != nil || len(list) != 0 {
		t.Errorf("leased twice: %v, %v", list, err)
	}
	if leases := b.lease(10); len(leases) != 0 {
		t.Errorf("leased %v while the team's balance is read", leases)
	}
	b.exec(`update billing.balances set reconcile_until = now() - interval '1 second'`)
	second := lease()
	report := billing.Report{TeamID: "acme", Token: first.Token, Sighting: billing.Sighting{Balance: 100}}
	if _, _, err := b.svc.Report(t.Context(), report); fault.KindOf(err) != fault.Conflict {
		t.Errorf("Report with the first lease = %v, want Conflict", err)
	}
	report.Token = second.Token
	once, _, err := b.svc.Report(t.Context(), report)
	if err != nil {
		t.Fatal(err)
	}
	report.Balance = 5
	again, _, err := b.svc.Report(t.Context(), report)
	if diff := cmp.Diff(once, again); diff != "" || err != nil {
		t.Errorf("reported twice, %v (-once +twice):\n%s", err, diff)
	}
	if list, err := b.svc.LeaseReconciliations(t.Context(), "worker", nil, 10, time.Minute); err != nil || len(list) != 0 {
		t.Errorf("due again at once: %v, %v", list, err)
	}
	if known, err := b.svc.Nudge(t.Context(), "acme"); err != nil || !known {
		t.Errorf("Nudge = %t, %v, want it known", known, err)
	}
	lease()
	if known, err := b.svc.Nudge(t.Context(), "newcomer"); err != nil || known {
		t.Errorf("Nudge of a new team = %t, %v, want it unknown", known, err)
	}
	if l := lease(); l.TeamID != "newcomer" {
		t.Errorf("leased %+v, want the newcomer", l)
	}
	b.lease(10)
	b.sound()
}

// The sink was read while a charge was under way that is settled when the
// reading is reported. It is not taken for one that the sink lost.
func TestAChargeThatIsSettledDuringTheReadingIsNotLost(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 100_000)
	b.sync()
	b.report("acme", billing.Sighting{Balance: 1_000_000})
	charge := b.leaseOne()
	leases, err := b.svc.LeaseReconciliations(t.Context(), "worker", []string{"acme"}, 1, time.Minute)
	if err != nil || len(leases) != 1 || len(leases[0].Doubtful) != 1 {
		t.Fatalf("LeaseReconciliations = %+v, %v, want one with a charge in doubt", leases, err)
	}
	b.settle(charge, billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	rec, _, err := b.svc.Report(t.Context(), billing.Report{
		TeamID: "acme", Token: leases[0].Token, Sighting: billing.Sighting{Balance: 1_000_000},
	})
	if err != nil || rec.Class != billing.ClassInFlight || !rec.Fixed {
		t.Errorf("reconciliation = %+v, %v, want it in flight", rec, err)
	}
	if rec := b.report("acme", billing.Sighting{Balance: 1_000_000}); rec.Class != billing.ClassMissingCharge {
		t.Errorf("the next reconciliation = %+v, want the charge missing: the sink had time", rec)
	}
	b.sound()
}

// A worker that sent a charge and was given up comes back when a reconciliation
// has settled it: it is posted once.
func TestALateOutcomeOfASettledChargePostsNothing(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 2)
	l := b.leaseOne()
	b.exec(`update billing.charges set lease_until = null, lease_worker = '' where lease_until is not null`)
	b.report("acme", billing.Sighting{NoBalance: true, Found: []string{l.Charge.ChargeID}})
	b.settle(l, billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	if got := b.balance("acme").PostedNanoUSD; got != 30 {
		t.Errorf("posted %d, want 30", got)
	}
	b.sound()
}
