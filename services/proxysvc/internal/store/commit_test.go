package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// A plan is made once a session: here while nobody has a limit, so that all tables
// are empty.
func TestBatchesReadNoTableFromEndToEnd(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w, stop := startWriter(t, db, settings)
	run := func(key string, limits ledger.Limits) {
		t.Helper()
		r := request(key, "team")
		ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: r, Hold: 1, Claims: ofKey(key, limits)})
		if err == nil {
			err = ticket.Settle(t.Context(), settlement(r, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		run("first", budget(100))
	}
	const accounts = 20_000
	for _, sql := range []string{
		`insert into spend.accounts (kind, id, spent_nano_usd, held_nano_usd, open_requests) select 'key', 'k' || n, 0, 0, 0 from generate_series(1, $1) n`,
		`insert into spend.windows (kind, id, duration, spent_nano_usd, resets_at) select 'key', 'k' || n, '30d', 0, now() + interval '1 day' from generate_series(1, $1) n`,
	} {
		if _, err := db.Exec(t.Context(), sql, accounts); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		run(fmt.Sprintf("k%d", n+1), ledger.Limits{Budgets: []ledger.Budget{{Limit: 100, Window: "30d"}}})
	}
	stop()
	db.Reset() // a session that ends tells its counts
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		rows, _ := db.Query(t.Context(), `
			select relname, seq_tup_read < $1 and n_tup_ins >= $1 from pg_stat_user_tables
			where schemaname = 'spend' and relname in ('accounts', 'windows')`, accounts)
		got := map[string]bool{}
		var name string
		var fine bool
		_, err := pgx.ForEachRow(rows, []any{&name, &fine}, func() error {
			got[name] = fine
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var told int64
		if err := db.QueryRow(t.Context(), `select n_tup_upd from pg_stat_user_tables where relid = 'spend.windows'::regclass`).Scan(&told); err != nil {
			t.Fatal(err)
		}
		if told < 20 {
			continue
		}
		if diff := cmp.Diff(map[string]bool{"accounts": true, "windows": true}, got); diff != "" {
			t.Errorf("tables that were not read from end to end (-want +got):\n%s", diff)
		}
		return
	}
}
