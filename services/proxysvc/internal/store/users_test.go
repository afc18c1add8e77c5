package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// TestRowsOfAUserAreFoundByItsKeys has two users with one key each and a third one of
// both, on two days. Some rows are counted and some are not, some are older than the
// table of users' keys, and one user has no more rows when a day is detached.
func TestRowsOfAUserAreFoundByItsKeys(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, before(t, "0016_rows_by_user.sql"))
	s := New(db)
	today := time.Date(2026, 5, 12, 0, 0, 0, 0, time.UTC)
	if err := s.EnsurePartitions(t.Context(), today.AddDate(0, 0, -1), 3); err != nil {
		t.Fatal(err)
	}
	open, err := s.OpenLog(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	number := int64(0)
	spend := func(day int, user, key string, cost money.NanoUSD) {
		t.Helper()
		r := request(key, "team")
		r.UserID = user
		number++
		err := s.Commit(t.Context(), &ledger.Batch{
			LogID: open.LogID, Number: number, FirstSeq: number,
			Settlements: []*ledger.Settlement{{Request: r, Cost: cost, Status: ledger.Completed, EndedAt: today.AddDate(0, 0, day).Add(time.Hour), Unadmitted: true}},
			Decide:      func(map[ledger.AccountID]*ledger.Account, time.Time) []*ledger.Admission { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := func() {
		t.Helper()
		if _, err := s.Count(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	costs := func(rows []ledger.Row, err error) (list []money.NanoUSD) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			list = append(list, r.Cost)
		}
		return list
	}
	check := func(user string, want ...money.NanoUSD) {
		t.Helper()
		if diff := cmp.Diff(want, costs(s.Rows(t.Context(), ledger.Filter{UserID: user, Limit: 10}))); diff != "" {
			t.Errorf("rows of %s (-want +got):\n%s", user, diff)
		}
		q := ledger.RowQuery{UserID: user, Limit: 10}
		if diff := cmp.Diff(want, costs(s.FindRows(t.Context(), q))); diff != "" {
			t.Errorf("rows found of %s (-want +got):\n%s", user, diff)
		}
		if n, err := s.CountRows(t.Context(), q); err != nil || n != int64(len(want)) {
			t.Errorf("%d rows of %s, %v, want %d", n, user, err, len(want))
		}
		var all, sliced money.NanoUSD
		for _, c := range want {
			all += c
		}
		slices, err := s.Slices(t.Context(), ledger.AccountID{Kind: ledger.KindUser, ID: user}, ledger.Days{})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range slices {
			sliced += l.Cost
		}
		if sliced != all {
			t.Errorf("slices of %s cost %d, want %d", user, sliced, all)
		}
	}

	spend(-1, "ann", "k1", 1)
	count()
	spend(-1, "both", "k1", 2)
	if err := db.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return pgmigrate.Up(t.Context(), c.Conn(), Schema, Migrations) }); err != nil {
		t.Fatal(err)
	}
	spend(0, "bob", "k2", 4)
	check("ann", 1)
	check("both", 2)
	check("bob", 4)
	auditClean(t, s)
	count()
	spend(0, "both", "k2", 8)
	spend(0, "", "k2", 16)
	check("bob", 4)
	check("both", 8, 2)
	check("nobody")
	auditClean(t, s)
	count()
	check("both", 8, 2)
	auditClean(t, s)

	exec(t, db, `update spend.logs set closed_at = now()`)
	count()
	if n, err := s.Detach(t.Context(), today); err != nil || n != 1 {
		t.Fatalf("%d days left, %v, want 1", n, err)
	}
	check("ann")
	check("both", 8)
	var known int
	if err := db.QueryRow(t.Context(), `select count(*) from spend.user_keys`).Scan(&known); err != nil || known != 2 {
		t.Errorf("%d keys of users are known, %v, want the 2 of the day that stays", known, err)
	}
	exec(t, db, `delete from spend.user_keys where user_id = 'bob'`)
	a, err := s.Audit(t.Context())
	if want := []string{"user bob has rows of key k2 on 2026-05-12, and is not found by it"}; err != nil || !cmp.Equal(want, a.Faults) {
		t.Errorf("the audit says %q, %v, want %q", a.Faults, err, want)
	}
}
