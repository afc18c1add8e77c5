package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

func TestSyncBillsEachRowOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2)
	b.ledger.add(1, "acme", 1001)
	b.ledger.add(1, "acme", 2)
	b.ledger.add(1, "acme", 0)
	b.ledger.add(2, "zeta", 33)
	if diff := cmp.Diff(billing.Result{Rows: 4, Events: 4, Charges: 2}, b.sync()); diff != "" {
		t.Errorf("Sync (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(billing.Result{}, b.sync()); diff != "" {
		t.Errorf("the second Sync (-want +got):\n%s", diff)
	}
	want := billing.Balance{TeamID: "acme", BilledNanoUSD: 3009, ChargedNanoUSD: 3000, CarriedNanoUSD: 9, NextChargeSeq: 2, Gate: billing.Gate{State: billing.Unconfigured}}
	if diff := cmp.Diff(want, b.balance("acme")); diff != "" {
		t.Errorf("balance (-want +got):\n%s", diff)
	}
	// The event that was only carried joins the next charge.
	b.ledger.add(1, "acme", 7)
	b.ledger.closed[1] = true
	b.sync()
	charges, err := b.svc.Charges(t.Context(), billing.ChargeQuery{TeamID: "acme", Limit: 10})
	if err != nil || len(charges) != 2 || charges[0].AmountNanoUSD != 30 || charges[0].EventCount != 2 || charges[1].EventCount != 2 {
		t.Errorf("charges = %+v, %v, want 30 for 2 events, and the one before for 2", charges, err)
	}
	b.sound()
}

func TestRowsThatCannotBeBilledAreKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "", 500)
	b.ledger.add(1, "acme", 10)
	if diff := cmp.Diff(billing.Result{Rows: 2, Events: 1, Charges: 1, Quarantined: 1}, b.sync()); diff != "" {
		t.Errorf("Sync (-want +got):\n%s", diff)
	}
	// The same request again, on another day and in another log.
	again := b.ledger.add(2, "acme", 10)
	again.RequestID, again.EndedAt = "req_1_2", noon.AddDate(0, 1, 0)
	b.ledger.rows[2][0] = again
	b.sync()
	a := b.audit()
	if a.Quarantined != 2 || a.QuarantinedNanoUSD != 510 || len(a.Faults) != 0 {
		t.Errorf("audit = %+v, want 2 rows of 510 in quarantine and no fault", a)
	}
	var reason, model string
	err := b.pool.QueryRow(t.Context(), `select reason, row->>'model' from billing.quarantine where log_id = 2`).Scan(&reason, &model)
	if err != nil || reason != "request was billed already, by row 2 of log 1" || model != "claude" {
		t.Errorf("quarantined for %q, model %q, %v", reason, model, err)
	}
}

func TestAHoleIsRefusedAndOtherLogsGoOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2)
	for range 4 {
		b.ledger.add(1, "acme", 10)
		b.ledger.add(2, "zeta", 10)
	}
	b.ledger.rows[1][2].Seq = 4 // row 3 is lost; it is the first of a page
	r, err := b.svc.Sync(t.Context())
	if fault.KindOf(err) != fault.DataLoss {
		t.Errorf("Sync = %v, want DataLoss", err)
	}
	if diff := cmp.Diff(billing.Result{Rows: 6, Events: 6, Charges: 3}, r); diff != "" {
		t.Errorf("Sync (-want +got):\n%s", diff)
	}
	b.ledger.rows[1][2].Seq = 3
	b.sync()
	if got := b.balance("acme").BilledNanoUSD; got != 120 {
		t.Errorf("billed = %d after the repair, want 120", got)
	}
	b.sound()
}

func TestAShrunkenLedgerIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 10)
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.ledger.rows[1] = b.ledger.rows[1][:1]
	if _, err := b.svc.Sync(t.Context()); fault.KindOf(err) != fault.DataLoss {
		t.Errorf("Sync = %v, want DataLoss", err)
	}
}

// Replicas sync and settle at once while the ledger grows; in the end every row
// is billed once and every charge is posted once.
func TestReplicasShareTheLogs(t *testing.T) {
	t.Parallel()
	b := newBench(t, 3)
	var want sync.Map
	const logs, rows, replicas = 4, 25, 8
	var g errgroup.Group
	for id := range int64(logs) {
		g.Go(func() error {
			for i := range rows {
				team := fmt.Sprint("team", (int(id)+i)%3)
				r := b.ledger.add(id+1, team, money.NanoUSD(i*7+1))
				want.Store(r.RequestID, r)
			}
			return nil
		})
	}
	for range replicas {
		svc := b.replica()
		g.Go(func() error {
			for range 5 {
				if _, err := svc.Sync(t.Context()); err != nil {
					return err
				}
				leases, err := svc.Lease(t.Context(), "worker", 10, 600e9, false)
				if err != nil {
					return err
				}
				for _, l := range leases {
					s := billing.Settlement{ChargeID: l.Charge.ChargeID, LeaseToken: l.Token, Outcome: billing.Applied, Proof: "test"}
					if _, err := svc.Settle(t.Context(), s); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	b.sync()
	for leases := b.lease(100); len(leases) > 0; leases = b.lease(100) {
		for _, l := range leases {
			b.settle(l, billing.Settlement{Outcome: billing.Applied, Proof: "test"})
		}
	}
	sums := map[string]money.NanoUSD{}
	want.Range(func(_, v any) bool {
		r := v.(billing.Row)
		sums[r.TeamID] += 3 * r.CostNanoUSD
		return true
	})
	for team, sum := range sums {
		bal := b.balance(team)
		if bal.BilledNanoUSD != sum || bal.PostedNanoUSD != bal.ChargedNanoUSD || bal.ChargedNanoUSD+bal.CarriedNanoUSD != sum {
			t.Errorf("%s: balance %+v, want billed %d and all charges posted", team, bal, sum)
		}
	}
	b.sound()
}

func TestEventsAreListedNewestFirstWithWhatTheyCameFrom(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 100)
	b.ledger.add(1, "zeta", 100)
	last := b.ledger.add(1, "acme", 105)
	b.ledger.rows[1][2].EndedAt = noon.AddDate(0, -5, 0) // older, and in the default partition
	b.sync()
	got, err := b.svc.Events(t.Context(), billing.EventQuery{TeamID: "acme", Limit: 10})
	if err != nil || len(got) != 2 {
		t.Fatalf("Events = %v, %v, want 2", got, err)
	}
	want := billing.Event{
		IdempotencyKey: "llm:" + last.RequestID, OrganizationID: "acme", EventType: "llm", Quantity: 15,
		CostNanoUSD: 105, PriceNanoUSD: 315, Markup: "3", SessionIDs: []string{"session_1"}, ChargeID: got[1].ChargeID,
		LogID: 1, Seq: 3, Model: "claude", OccurredAt: noon.AddDate(0, -5, 0), CreatedAt: got[1].CreatedAt,
	}
	if diff := cmp.Diff(want, got[1]); diff != "" || got[1].ChargeID == "" {
		t.Errorf("the older event (-want +got):\n%s", diff)
	}
	rest, err := b.svc.Events(t.Context(), billing.EventQuery{
		TeamID: "acme", BeforeTime: got[0].OccurredAt, BeforeKey: got[0].IdempotencyKey, Limit: 10,
	})
	if diff := cmp.Diff(got[1:], rest); diff != "" || err != nil {
		t.Errorf("the second page %v (-want +got):\n%s", err, diff)
	}
	one, err := b.svc.Events(t.Context(), billing.EventQuery{IdempotencyKey: "llm:req_1_2", Limit: 10})
	if err != nil || len(one) != 1 || one[0].OrganizationID != "zeta" {
		t.Errorf("one request's event = %+v, %v, want zeta's", one, err)
	}
	var credits string
	err = b.pool.QueryRow(t.Context(), `select credits::text from billing.billing_events where seq = 3`).Scan(&credits)
	if err != nil || credits != "0.0000315" {
		t.Errorf("credits = %s, %v, want 0.0000315", credits, err)
	}
}

func TestBookLeavesALogThatAnotherReplicaHas(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	row := b.ledger.add(1, "acme", 10)
	s := store.New(b.pool)
	d := billing.Draft{Page: billing.Page{LogID: 1, Rows: []billing.Row{row}, LastSeq: 1}}
	b.exec(`insert into billing.cursors (log_id) values (1)`)
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // it was only there to hold the lock
	if _, err := tx.Exec(t.Context(), `select from billing.cursors where log_id = 1 for update`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // waiting for the lock would be the fault
	defer cancel()
	if got, err := s.Book(ctx, d, b.opt.Rules, noon); err != nil || !got.Held || got.Rows != 0 {
		t.Errorf("Book = %+v, %v, want it held by another", got, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.exec(`update billing.cursors set seq = 5`)
	if got, err := s.Book(t.Context(), d, b.opt.Rules, noon); err != nil || !got.Moved || got.Seq != 5 || got.Rows != 0 {
		t.Errorf("Book = %+v, %v, want the cursor moved to 5", got, err)
	}
}
