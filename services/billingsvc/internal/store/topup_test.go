package store_test

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// withTopUps is a team with 40 credits' worth that wants 1000 more below 50.
func withTopUps(t *testing.T) *bench {
	t.Helper()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 20)
	b.sync()
	b.report("acme", billing.Sighting{Balance: 100})
	rule := billing.TopUpRule{TeamID: "acme", Enabled: true, BelowNanoUSD: 50, AmountNanoUSD: 1000, MaxPerMonth: 2}
	if _, err := b.svc.SetTopUpRule(t.Context(), rule, billing.By{Actor: "owner", Reason: "wanted"}); err != nil {
		t.Fatal(err)
	}
	b.state("acme", billing.Active, 40)
	return b
}

func (b *bench) topUps(want int) []billing.TopUpLease {
	b.t.Helper()
	list, err := b.svc.LeaseTopUps(b.t.Context(), "worker", 10, time.Minute)
	if err != nil || len(list) != want {
		b.t.Fatalf("LeaseTopUps = %+v, %v, want %d", list, err, want)
	}
	return list
}

func (b *bench) settleTopUp(l billing.TopUpLease, o billing.TopUpOutcome) {
	b.t.Helper()
	_, err := b.svc.SettleTopUp(b.t.Context(), billing.TopUpSettlement{
		TopUpID: l.TopUp.TopUpID, LeaseToken: l.Token, Outcome: o, Detail: "card_declined",
	})
	if err != nil {
		b.t.Fatalf("SettleTopUp: %v", err)
	}
}

// Mistake 17: a top-up has an id before anybody is charged, and one need makes
// one purchase: crashes and replicas repeat that one.
func TestMistake17OneNeedMakesOneTopUpWhateverCrashes(t *testing.T) {
	t.Parallel()
	b := withTopUps(t)
	var g errgroup.Group
	got := make(chan billing.TopUpLease, 20)
	for range 8 {
		svc := b.replica()
		g.Go(func() error {
			list, err := svc.LeaseTopUps(t.Context(), "worker", 10, time.Minute)
			for _, l := range list {
				got <- l
			}
			return err
		})
	}
	if err := g.Wait(); err != nil || len(got) != 1 {
		t.Fatalf("%d top-ups, %v, want one", len(got), err)
	}
	first := <-got
	b.exec(`update billing.top_ups set lease_until = now() - interval '1 second'`) // the worker died
	second := b.topUps(1)[0]
	if second.TopUp.TopUpID != first.TopUp.TopUpID || second.TopUp.State != billing.TopUpUnknown || second.TopUp.Attempts != 2 {
		t.Errorf("leased %+v, want %s again, of unknown outcome", second, first.TopUp.TopUpID)
	}
	b.settleTopUp(second, billing.TopUpPaid)
	b.topUps(0) // until the sink's balance is read
	b.state("acme", billing.Active, 40)
	b.report("acme", billing.Sighting{Balance: 1100})
	b.state("acme", billing.Active, 1040)
	b.topUps(0)
}

// Mistake 15: a declined card is no top-up: no credits, and the breaker trips.
// Mistake 16: the breaker ends with its month.
func TestMistake16ADeclinedCardTripsTheBreakerUntilTheMonthIsOver(t *testing.T) {
	t.Parallel()
	b := withTopUps(t)
	b.settleTopUp(b.topUps(1)[0], billing.TopUpNo)
	b.state("acme", billing.Active, 40)
	b.topUps(0)
	rule, err := b.svc.TopUpRule(t.Context(), "acme")
	if err != nil || !rule.Declined(time.Now()) || rule.DeclineReason != "card_declined" {
		t.Errorf("rule = %+v, %v, want the breaker tripped", rule, err)
	}
	b.exec(`update billing.top_up_rules set declined_at = now() - interval '32 days'`)
	b.topUps(1)
}

func TestTopUpsStopAtTheMonthsMostAndWhenSwitchedOff(t *testing.T) {
	t.Parallel()
	b := withTopUps(t)
	for range 2 {
		b.settleTopUp(b.topUps(1)[0], billing.TopUpPaid)
		b.report("acme", billing.Sighting{Balance: 100}) // and it was for nothing
	}
	b.topUps(0)
	b.exec(`update billing.top_ups set created_at = now() - interval '32 days'`)
	b.opt.TopUps = false
	b.svc = b.replica()
	b.topUps(0)
	b.opt.TopUps = true
	b.svc = b.replica()
	b.topUps(1)
	list, err := b.svc.TopUps(t.Context(), billing.HistoryQuery{TeamID: "acme", Limit: 10})
	if err != nil || len(list) != 3 || list[2].State != billing.TopUpSucceeded {
		t.Errorf("top-ups = %+v, %v, want three", list, err)
	}
}

// TestATopUpInDoubtIsResolvedByHand settles by hand what no worker can: it blocks the
// team's next top-up no more, and a late outcome of the worker's counts no more.
func TestATopUpInDoubtIsResolvedByHand(t *testing.T) {
	t.Parallel()
	b := withTopUps(t)
	by := billing.By{Actor: "ops", Reason: "looked at the invoices"}
	resolve := func(id string, change func(*billing.ResolveTopUp)) (billing.TopUp, error) {
		r := billing.ResolveTopUp{TopUpID: id, By: by}
		change(&r)
		return b.svc.ResolveTopUp(t.Context(), r)
	}
	notPaid, paid := func(*billing.ResolveTopUp) {}, func(r *billing.ResolveTopUp) { r.Paid, r.InvoiceID = true, "in_7" }
	dry := func(r *billing.ResolveTopUp) { r.DryRun = true }

	lease := b.topUps(1)[0]
	id := lease.TopUp.TopUpID
	if _, err := resolve(id, notPaid); fault.KindOf(err) != fault.Conflict {
		t.Errorf("resolved while it is leased: %v, want Conflict", err)
	}
	b.settleTopUp(lease, billing.TopUpUnsure)
	if got, err := resolve(id, dry); err != nil || got.State != billing.TopUpFailed {
		t.Errorf("dry run: %+v, %v", got, err)
	}
	b.topUps(1) // it is still in doubt, and due again
	b.exec(`update billing.top_ups set lease_until = now() - interval '1 second'`)
	if got, err := resolve(id, notPaid); err != nil || got.State != billing.TopUpFailed || got.SettledAt == nil {
		t.Errorf("resolved as %+v, %v, want failed", got, err)
	}
	late := billing.TopUpSettlement{TopUpID: id, LeaseToken: lease.Token + 1, Outcome: billing.TopUpPaid}
	if _, err := b.svc.SettleTopUp(t.Context(), late); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a late outcome: %v, want Conflict", err)
	}
	if _, err := resolve(id, paid); fault.KindOf(err) != fault.Precondition {
		t.Errorf("resolved twice: %v, want Precondition", err)
	}

	next := b.topUps(1)[0] // the team still needs one
	b.settleTopUp(next, billing.TopUpUnsure)
	if got, err := resolve(next.TopUp.TopUpID, paid); err != nil || got.State != billing.TopUpSucceeded || got.InvoiceID != "in_7" {
		t.Errorf("resolved as %+v, %v, want succeeded", got, err)
	}
	b.topUps(0) // until the sink's balance is read
	b.report("acme", billing.Sighting{Balance: 100})
	b.exec(`update billing.top_ups set created_at = created_at - interval '32 days'`)
	if third := b.topUps(1)[0]; !slices.Equal(third.Counted, []string{"in_7"}) {
		t.Errorf("counted invoices %v, want in_7", third.Counted)
	}
	ops, err := b.svc.Operations(t.Context(), billing.HistoryQuery{TeamID: "acme", Limit: 10})
	if err != nil || len(ops) != 3 || ops[0].Action != "resolve_top_up" || ops[0].Actor != "ops" || ops[2].Action != "top_up_rule" {
		t.Errorf("operations = %+v, %v, want two resolutions", ops, err)
	}
	for _, wrong := range []billing.ResolveTopUp{{}, {TopUpID: id}, {TopUpID: id, InvoiceID: "in_1", By: by}} {
		if _, err := b.svc.ResolveTopUp(t.Context(), wrong); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v, want Invalid", wrong, err)
		}
	}
	if _, err := resolve("nothing", notPaid); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an unknown top-up: %v, want NotFound", err)
	}
}
