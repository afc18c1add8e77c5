package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
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

// A team that is asked for by name is handed out although its balance is locked for
// the moment: whoever asks is not told that nobody knows it.
func TestANamedTeamWaitsForItsLock(t *testing.T) {
	t.Parallel()
	b := withCharges(t, 1)
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it only holds a lock
	if _, err := tx.Exec(t.Context(), `select from billing.balances where team_id = 'acme' for update`); err != nil {
		t.Fatal(err)
	}
	if due, err := b.svc.LeaseReconciliations(t.Context(), "worker", nil, 10, time.Minute); err != nil || len(due) != 0 {
		t.Errorf("leased what is due = %+v, %v, want nothing: a worker takes others first", due, err)
	}
	var named []billing.ReconcileLease
	asked := make(chan error, 1)
	go func() {
		var err error
		named, err = b.svc.LeaseReconciliations(t.Context(), "worker", []string{"acme"}, 10, time.Minute)
		asked <- err
	}()
	for len(asked) == 0 && !pgtest.SomeoneWaits(t, b.pool) {
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err != nil || len(named) != 1 {
		t.Errorf("leased by name = %+v, %v, want acme", named, err)
	}
}
