package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

func TestAuditSumsEachTeam(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2)
	for range 3 {
		b.ledger.add(1, "acme", 11)
	}
	b.ledger.add(1, "zeta", 1)
	b.sync()
	b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	want := billing.Audit{Checked: 4, Teams: []billing.TeamSums{
		{TeamID: "acme", Events: 3, CostNanoUSD: 33, BilledNanoUSD: 99, ChargedNanoUSD: 90, PostedNanoUSD: 60, CarriedNanoUSD: 9},
		{TeamID: "zeta", Events: 1, CostNanoUSD: 1, BilledNanoUSD: 3, CarriedNanoUSD: 3},
	}, Read: []billing.TeamRead{{TeamID: "acme", CostNanoUSD: 33}, {TeamID: "zeta", CostNanoUSD: 1}}}
	if diff := cmp.Diff(want, b.audit()); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

// What was charged and is not posted is told apart.
func TestAuditTellsWhatIsNotPosted(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	for range 5 {
		b.ledger.add(1, "acme", 100)
	}
	b.sync()
	for _, s := range []billing.Settlement{
		{Outcome: billing.Applied, Proof: "deductions"},
		{Outcome: billing.PartlyApplied, Proof: "deductions", AppliedNanoUSD: 280},
		{Outcome: billing.Refused, Error: "feature_not_found"},
		{Outcome: billing.Unknown, Error: "timeout", RetryAfter: time.Hour},
	} {
		b.settle(b.leaseOne(), s)
	}
	want := []billing.TeamSums{{
		TeamID: "acme", Events: 5, CostNanoUSD: 500, BilledNanoUSD: 1500, ChargedNanoUSD: 1500, PostedNanoUSD: 580,
		ShortNanoUSD: 20, DeadNanoUSD: 300, DoubtfulNanoUSD: 300,
	}}
	a := b.audit()
	if diff := cmp.Diff(want, a.Teams); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	if len(a.Faults) != 0 {
		t.Errorf("audit found %q, want no fault", a.Faults)
	}
}

// Rows in quarantine, and what was billed from there, are where the ledger has
// them.
func TestAuditSumsWhatWasReadAsTheLedgerHasIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 11)
	for range 2 {
		b.ledger.add(1, "", 7)
	}
	b.sync()
	want := []billing.TeamRead{{CostNanoUSD: 14}, {TeamID: "acme", CostNanoUSD: 11}}
	if diff := cmp.Diff(want, b.audit().Read); diff != "" {
		t.Errorf("before anything is billed from quarantine (-want +got):\n%s", diff)
	}
	cost := money.NanoUSD(5)
	r := billing.Rerating{Places: []billing.Place{{LogID: 1, Seq: 2}}, TeamID: "acme", Cost: &cost, By: billing.By{Actor: "ann", Reason: "known now"}}
	if out, err := b.svc.Rerate(t.Context(), r); err != nil || len(out.Events) != 1 {
		t.Fatalf("Rerate = %+v, %v, want an event", out, err)
	}
	a := b.audit()
	if diff := cmp.Diff(want, a.Read); diff != "" {
		t.Errorf("after a row was billed to acme at another cost (-want +got):\n%s", diff)
	}
	if a.Teams[0].CostNanoUSD != 16 || a.QuarantinedNanoUSD != 7 {
		t.Errorf("acme's events cost %d, %d in quarantine, want 16 and 7", a.Teams[0].CostNanoUSD, a.QuarantinedNanoUSD)
	}
}

// A kind of fault that is everywhere is named a hundred times, and counted.
func TestAuditCountsTheFaultsThatItDoesNotName(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	b.exec(`insert into billing.balances (team_id, granted_nano_usd) select 'team' || lpad(i::text, 3, '0'), 5 from generate_series(1, 103) i`)
	faults := b.audit().Faults
	if len(faults) != 101 || !strings.HasPrefix(faults[0], "team team001: grants") || !strings.HasPrefix(faults[99], "team team100: grants") ||
		faults[100] != "… and 3 more like the last one" {
		t.Errorf("audit found %d faults, %q, want 100 in order and then how many more", len(faults), faults)
	}
	b.exec(`delete from billing.balances where team_id > 'team100'`)
	if faults := b.audit().Faults; len(faults) != 100 {
		t.Errorf("audit found %d faults of 100", len(faults))
	}
}

// Each damage to the books is found and named.
func TestAuditFindsDamage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, damage, want string }{
		{"an event was lost", `delete from billing.billing_events where seq = 1`, "events sum to"},
		{"an event was edited", `update billing.billing_events set price_nano_usd = 1 where seq = 1`, "carry before"},
		{
			"an event was put into another charge",
			`update billing.billing_events set charge_id = (select charge_id from billing.charges where seq = 2) where seq = 1`, "checksum",
		},
		{"an event was given to another team", `update billing.billing_events set organization_id = 'zeta' where seq = 1`, "event llm:req_1_1 of team zeta is in charge"},
		{"a charge's amount was edited", `update billing.charges set amount_nano_usd = 40 where seq = 1`, "charges sum to"},
		{"a charge is gone and its events are not", `delete from billing.charges where seq = 1`, "event llm:req_1_1 is in charge"},
		{"a charge is gone", `update billing.billing_events set charge_id = null where seq = 1;
			delete from billing.charges where seq = 1`, "its next seq is"},
		{"a balance was edited", `update billing.balances set posted_nano_usd = 0`, "says posted 0"},
		{"billed is not charged and carried", `alter table billing.balances drop constraint balances_conserved;
			update billing.balances set billed_nano_usd = 1`, "is not charged"},
		{"a charge was called posted", `alter table billing.charges drop constraint charges_proof;
			update billing.charges set proof = '' where seq = 1`, "without a proof"},
		{"an event is there twice", `insert into billing.billing_events (day, idempotency_key, organization_id, event_type, quantity,
			cost_nano_usd, price_nano_usd, markup, session_ids, metadata, charge_id, log_id, seq, occurred_at, created_at)
			select day + 1, idempotency_key, organization_id, event_type, quantity, 0, 0, markup, session_ids, metadata, charge_id,
			log_id, seq, occurred_at + interval '1 day', created_at from billing.billing_events where seq = 1`, "is there 2 times"},
		{"an event was repriced", `update billing.billing_events set cost_nano_usd = 11 where seq = 1`, "event llm:req_1_1: price 30 is not cost 11 x markup 3"},
		{"a row was lost and another one doubled", `update billing.billing_events set seq = 2 where seq = 1`, "row 1 of log 1 is neither"},
		{"a grant was edited", `update billing.balances set granted_nano_usd = 5`, "says granted 5"},
		{"a row was skipped", `update billing.cursors set seq = 9`, "2 of its 9 rows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := withCharges(t, 2)
			b.settle(b.leaseOne(), billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
			b.sound()
			b.exec(tt.damage)
			if faults := strings.Join(b.audit().Faults, "\n"); !strings.Contains(faults, tt.want) {
				t.Errorf("audit found %q, want %q in it", faults, tt.want)
			}
		})
	}
}

// Mistake 23: partitions are there months ahead, and an event without one is kept
// and reported, not refused.
func TestMistake23PartitionsAreMadeAheadAndTakeInStrayEvents(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	s := store.New(b.pool)
	b.ledger.add(1, "acme", 10)
	b.ledger.add(1, "acme", 10)
	b.ledger.rows[1][1].EndedAt = noon.AddDate(0, 6, 0)
	b.sync()
	for range 2 {
		if stray, err := s.EnsurePartitions(t.Context(), noon); err != nil || stray != 1 {
			t.Fatalf("EnsurePartitions = %d, %v, want one event left for a month too far ahead", stray, err)
		}
	}
	var months int
	if err := b.pool.QueryRow(t.Context(), `select count(*) from pg_inherits where inhparent = 'billing.billing_events'::regclass`).
		Scan(&months); err != nil || months != 6 {
		t.Errorf("%d partitions, %v, want 5 months and the default", months, err)
	}
	if stray, err := s.EnsurePartitions(t.Context(), noon.AddDate(0, 4, 0)); err != nil || stray != 0 {
		t.Errorf("EnsurePartitions later = %d, %v, want none left", stray, err)
	}
	b.sound()
	// A row of a month that has its partition now still meets itself there.
	b.exec(`update billing.cursors set seq = 0`)
	if r := b.sync(); r.Rows != 2 || r.Events != 0 || r.Quarantined != 0 {
		t.Errorf("Sync from the start = %+v, want 2 rows and no events", r)
	}
	b.sound()
}

func TestReplicasMakePartitionsAtOnce(t *testing.T) {
	t.Parallel()
	s := store.New(pgtest.New(t, store.Schema, store.Migrations))
	fail := make(chan error, 4)
	for range cap(fail) {
		go func() { _, err := s.EnsurePartitions(t.Context(), noon); fail <- err }()
	}
	for range cap(fail) {
		if err := <-fail; err != nil {
			t.Error(err)
		}
	}
}

// A second audit looks at what is new only, and still finds what is wrong with
// it.
func TestAuditGoesOnFromWhereEverythingWasRight(t *testing.T) {
	t.Parallel()
	b := newBench(t, 5)
	for range 12 {
		b.ledger.add(1, "acme", 11)
	}
	b.ledger.add(2, "", 7)
	b.sync()
	audit := func(full bool) billing.Audit {
		t.Helper()
		a, err := b.svc.Audit(t.Context(), full)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := audit(false); a.Checked != 12 || a.Trusted != 0 || len(a.Faults) != 0 {
		t.Errorf("the first audit = %+v, want 12 events checked and no fault", a)
	}
	first := audit(false)
	if first.Checked != 0 || first.Trusted != 12 {
		t.Errorf("the second audit checked %d events and trusted %d, want none and 12", first.Checked, first.Trusted)
	}
	for range 4 {
		b.ledger.add(1, "acme", 11)
	}
	b.sync()
	second := audit(false)
	if second.Trusted != 12 || second.Checked != 4 || len(second.Faults) != 0 || second.Teams[0].Events != 16 {
		t.Errorf("after 4 more = %+v, want 4 checked, 12 trusted, 16 in all", second)
	}
	if diff := cmp.Diff(second.Teams, audit(true).Teams); diff != "" {
		t.Errorf("a full audit sums otherwise (-incremental +full):\n%s", diff)
	}
	b.ledger.add(1, "acme", 11)
	b.sync()
	b.exec(`update billing.billing_events set price_nano_usd = 5 where seq = 17`)
	for range 2 { // a fault is not forgotten: the mark stays before it
		if faults := strings.Join(audit(false).Faults, "\n"); !strings.Contains(faults, "event llm:req_1_17: price 5") {
			t.Errorf("audit found %q, want the event that was edited", faults)
		}
	}
	b.exec(`update billing.billing_events set price_nano_usd = 5 where seq = 3`)
	if faults := strings.Join(audit(true).Faults, "\n"); !strings.Contains(faults, "event llm:req_1_3: price 5") {
		t.Errorf("a full audit found %q, want the older event that was edited", faults)
	}
}
