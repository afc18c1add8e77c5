package store_test

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// A team whose balance could not be read goes on with its charges at once, and is not
// the first to be read again.
func TestATeamThatCouldNotBeReadIsGivenBack(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	lease := func(teams ...string) []billing.ReconcileLease {
		t.Helper()
		list, err := b.svc.LeaseReconciliations(t.Context(), "reader", teams, 10, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	read := lease()
	if len(read) != 1 || len(b.lease(10)) != 0 {
		t.Fatalf("leased %v, want acme, and no charge of it meanwhile", read)
	}
	if err := b.svc.Release(t.Context(), "acme", read[0].Token, time.Hour); err != nil {
		t.Fatal(err)
	}
	if again := lease(); len(again) != 0 {
		t.Errorf("leased %v, want nobody: it is due in an hour", again)
	}
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	for name, err := range map[string]error{
		"Release again": b.svc.Release(t.Context(), "acme", read[0].Token, time.Hour),
		"a late report": func() error {
			_, _, err := b.svc.Report(t.Context(), billing.Report{TeamID: "acme", Token: read[0].Token, Sighting: billing.Sighting{Balance: 10}})
			return err
		}(),
	} {
		if fault.KindOf(err) != fault.Conflict {
			t.Errorf("%s = %v, want Conflict", name, err)
		}
	}
	if named := lease("acme"); len(named) != 1 {
		t.Errorf("leased %v by name, want acme", named)
	}
	b.sound()
}
