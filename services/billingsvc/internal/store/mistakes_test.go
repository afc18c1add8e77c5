package store_test

import (
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Mistake 5: a long stream is logged at its end with a time from its beginning,
// and a transaction may commit late. The cursor counts places, not times.
func TestMistake05RowsThatAreOlderThanWhatWasBilledAreBilled(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.ledger.add(1, "acme", 20)
	b.ledger.rows[1][1].EndedAt = noon.AddDate(0, 0, -3)
	b.ledger.add(2, "acme", 40)
	b.ledger.rows[2][0].EndedAt = noon.AddDate(0, -2, 0)
	b.sync()
	if got := b.balance("acme").BilledNanoUSD; got != 210 {
		t.Errorf("billed %d, want all of 210", got)
	}
	b.sound()
}

// Mistake 7: a team that was never seen is billed from its first request on,
// however long nobody was there to read.
func TestMistake07ANewTeamIsBilledFromItsFirstRequestOn(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.sync() // a run that finds nothing
	for day := range 5 {
		b.ledger.add(1, "newcomer", 10)
		b.ledger.rows[1][day].EndedAt = noon.AddDate(0, 0, day-30)
	}
	b.sync()
	if got := b.balance("newcomer").BilledNanoUSD; got != 150 {
		t.Errorf("billed %d, want all of 150", got)
	}
	b.sound()
}

// Mistake 22: a key is as old as its event, not as its insert: a row that is
// presented again years later, whatever partitions were made meanwhile, meets
// itself.
func TestMistake22ARowThatIsPresentedAgainMuchLaterIsNotBilledAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	row := b.ledger.add(1, "acme", 10)
	b.sync()
	b.exec(`update billing.billing_events set created_at = created_at - interval '3 years'`)
	again := b.ledger.add(2, "acme", 10)
	again.RequestID, again.EndedAt = row.RequestID, row.EndedAt
	b.ledger.rows[2][0] = again
	if r := b.sync(); r.Events != 0 || r.Quarantined != 1 {
		t.Errorf("Sync = %+v, want it in quarantine", r)
	}
	if got := b.balance("acme").BilledNanoUSD; got != 30 {
		t.Errorf("billed %d, want 30", got)
	}
	b.sound()
}

// Mistake 18: teams do not block each other: while one's balance is locked the
// others are billed, also those in the same page of another log.
func TestMistake18ALockedTeamHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t, 10)
	b.ledger.add(1, "acme", 10)
	b.sync()
	tx, err := b.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // it was only there to hold the lock
	if _, err := tx.Exec(t.Context(), `select from billing.balances where team_id = 'acme' for update`); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		e := compute("compute:"+string(rune('A'+i)), money.NanoUSD(10))
		e.OrganizationID = "team" + string(rune('A'+i))
		if _, err := b.svc.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if leases := b.lease(100); len(leases) != 1 || leases[0].Charge.TeamID != "acme" {
		t.Errorf("leased %v, want acme's: a lease needs no balance", leases)
	}
}
