package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// withCharges is a bench whose team acme has n charges of 30, 60, 90, …
func withCharges(t *testing.T, n int) *bench {
	t.Helper()
	b := newBench(t, 1) // a page a row: a charge a row
	for i := range n {
		b.ledger.add(1, "acme", money.NanoUSD(10*(i+1)))
	}
	b.sync()
	return b
}

func TestATeamsChargesGoOutOneByOneInOrder(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 3)
	for seq := int64(1); seq <= 3; seq++ {
		l := b.leaseOne()
		if l.Charge.Seq != seq || l.Charge.Attempts != 1 || l.Charge.FirstSentAt == nil || l.Charge.State != billing.Pending {
			t.Errorf("leased %+v, want seq %d at its first attempt", l.Charge, seq)
		}
		if more := b.lease(100); len(more) != 0 {
			t.Errorf("leased %+v while seq %d is out", more, seq)
		}
		b.settle(l, billing.Settlement{Outcome: billing.Applied, Proof: "deductions", SinkBalanceCredits: fmt.Sprint(100 - seq)})
	}
	if got := b.balance("acme"); got.PostedNanoUSD != 180 || got.SinkBalanceCredits != "97" {
		t.Errorf("balance = %+v, want 180 posted and 97 credits left", got)
	}
	b.sound()
}

func TestAChargeThatWaitsHoldsUpItsTeamOnly(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 2)
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.NotApplied, RetryAfter: time.Hour, Error: "429"})
	b.ledger.add(2, "zeta", 10)
	b.sync()
	if l := b.leaseOne(); l.Charge.TeamID != "zeta" {
		t.Errorf("leased %+v, want zeta's", l.Charge)
	}
}

func TestADeadChargeLetsTheNextOnesPassUntilItIsRequeued(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 2)
	dead := b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Refused, Error: "400 invalid_inputs"})
	if dead.State != billing.Dead || dead.LastError != "400 invalid_inputs" {
		t.Errorf("refused = %+v, want dead with its reason", dead)
	}
	second := b.leaseOne()
	if second.Charge.Seq != 2 {
		t.Errorf("leased seq %d, want 2", second.Charge.Seq)
	}
	again, err := b.svc.Requeue(t.Context(), billing.Requeue{ChargeIDs: []string{dead.ChargeID, second.Charge.ChargeID, "unknown"}})
	if err != nil || len(again.Charges) != 1 || again.Charges[0].State != billing.Pending || again.Charges[0].ChargeID != dead.ChargeID {
		t.Errorf("Requeue = %+v, %v, want the dead one pending", again, err)
	}
	if more := b.lease(100); len(more) != 0 {
		t.Errorf("leased %+v beside seq 2", more)
	}
	b.settle(second, billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	if l := b.leaseOne(); l.Charge.Seq != 1 || l.Charge.Attempts != 2 {
		t.Errorf("leased %+v, want seq 1 again", l.Charge)
	}
	b.sound()
}

// Mistake 12: who lost its lease notices, whatever it holds in its hands.
func TestMistake12ALapsedLeaseIsFencedAndMakesItsChargeAmbiguous(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	first := b.leaseOne()
	b.exec(`update billing.charges set lease_until = now() - interval '1 second'`)
	second := b.leaseOne()
	if second.Token != first.Token+1 || second.Charge.State != billing.Ambiguous || second.Charge.Attempts != 2 {
		t.Errorf("leased again = %+v, want a new token, ambiguous, attempt 2", second)
	}
	late := func() {
		t.Helper()
		_, err := b.svc.Settle(t.Context(), billing.Settlement{
			ChargeID: first.Charge.ChargeID, LeaseToken: first.Token, Outcome: billing.Applied, Proof: "late",
		})
		if fault.KindOf(err) != fault.Conflict {
			t.Errorf("settling the first lease = %v, want Conflict", err)
		}
	}
	late()
	b.exec(`update billing.charges set lease_until = now() - interval '1 second'`)
	third := b.leaseOne()
	late() // that of the lease before is recorded by now, so that the token alone tells
	waiting := b.settle(third, billing.Settlement{Outcome: billing.NotApplied, Error: "429"})
	if waiting.State != billing.Ambiguous {
		t.Errorf("not applied = %s, want ambiguous: the first attempt may have been applied", waiting.State)
	}
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "lock_already_exists"})
	b.sound()
}

func TestALapsedLeaseMayStillBeSettledUntilItIsTakenOver(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	l := b.leaseOne()
	b.exec(`update billing.charges set lease_until = now() - interval '1 second'`)
	if c := b.settle(l, billing.Settlement{Outcome: billing.Applied, Proof: "deductions"}); c.State != billing.Posted {
		t.Errorf("settled = %s, want posted", c.State)
	}
	b.sound()
}

func TestRepeatingASettlementPostsOnce(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	l := b.leaseOne()
	s := billing.Settlement{Outcome: billing.PartlyApplied, Proof: "deductions", AppliedNanoUSD: 20}
	once, twice := b.settle(l, s), b.settle(l, s)
	if diff := cmp.Diff(once, twice); diff != "" || once.ShortfallNanoUSD != 10 {
		t.Errorf("settled twice (-once +twice):\n%s", diff)
	}
	if got := b.balance("acme").PostedNanoUSD; got != 20 {
		t.Errorf("posted = %d, want 20", got)
	}
	b.sound()
}

func TestSettleAndLeaseRefuseNonsense(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	l := b.leaseOne()
	for name, s := range map[string]billing.Settlement{
		"a charge that does not exist": {ChargeID: "nope", LeaseToken: 1, Outcome: billing.NotApplied},
		"no charge":                    {LeaseToken: 1, Outcome: billing.NotApplied},
		"no token":                     {ChargeID: l.Charge.ChargeID, Outcome: billing.NotApplied},
		"applied without a proof":      {ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.Applied},
		"a balance that is no number": {
			ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.Applied, Proof: "x",
			SinkBalanceCredits: "lots",
		},
		"applied though it was not sent": {ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.Applied, Proof: "x", NotSent: true},
		"an applied key that is used up": {ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.Applied, Proof: "x", KeyUsedUp: true},
		"a negative wait":                {ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.NotApplied, RetryAfter: -1},
	} {
		if _, err := b.svc.Settle(t.Context(), s); fault.KindOf(err) != fault.Invalid && fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: Settle = %v, want Invalid or NotFound", name, err)
		}
	}
	if _, err := b.svc.Lease(t.Context(), "", 1, time.Minute, false); fault.KindOf(err) != fault.Invalid {
		t.Errorf("Lease without a worker = %v, want Invalid", err)
	}
}

// Eight workers lease at once; no team is ever handed out twice.
func TestWorkersNeverShareATeam(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	const teams = 60
	for i := range teams * 2 {
		b.ledger.add(1, fmt.Sprint("team", i%teams), 10)
	}
	b.sync()
	got := make(chan string, teams*2)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for range 4 {
				leases, err := b.svc.Lease(t.Context(), "worker", 2, time.Minute, false)
				if err != nil {
					return err
				}
				for _, l := range leases {
					got <- l.Charge.TeamID
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	close(got)
	seen := map[string]int{}
	for team := range got {
		seen[team]++
	}
	for _, l := range b.lease(100) { // what was skipped while it was locked
		seen[l.Charge.TeamID]++
	}
	for i := range teams {
		if n := seen[fmt.Sprint("team", i)]; n != 1 {
			t.Errorf("team%d was leased %d times, want once", i, n)
		}
	}
}
