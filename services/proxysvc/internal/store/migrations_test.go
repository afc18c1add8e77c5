package store

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
)

// before are the migrations that come before a file.
func before(t *testing.T, file string) fs.FS {
	t.Helper()
	names, err := fs.Glob(Migrations, "*/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	older := fstest.MapFS{}
	for _, name := range names {
		text, err := fs.ReadFile(Migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		if name < "migrations/"+file {
			older[name] = &fstest.MapFile{Data: text}
		}
	}
	if len(older) == 0 || len(older) == len(names) {
		t.Fatalf("%d of %d migrations come before %s", len(older), len(names), file)
	}
	return older
}

// TestTotalsSurviveTheirMove has totals of every kind in one table before the
// migration that parts them.
func TestTotalsSurviveTheirMove(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, before(t, "0009_few_and_many.sql"))
	exec(t, db, `
		insert into spend.account_totals (kind, id, log_id, day, requests, failed_requests, cost_nano_usd, input_tokens, output_tokens,
		  cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests)
		select kind, kind || n, n % 3, current_date - n % 5, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8
		from unnest('{key,user,team,team_model,model,tag}'::text[]) kind, generate_series(1, 50) n`)
	all := func() (rows string) {
		err := db.QueryRow(t.Context(), `
			select string_agg(t::text, E'\n' order by t::text) from (
			  select kind, id, log_id, day, requests, failed_requests, cost_nano_usd, input_tokens, output_tokens, cache_read_input_tokens,
			    cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests from spend.account_totals) t`).Scan(&rows)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	want := all()
	err := db.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return pgmigrate.Up(t.Context(), c.Conn(), Schema, Migrations) })
	if err != nil {
		t.Fatal(err)
	}
	if got := all(); got != want || len(got) < 300*20 {
		t.Errorf("%d bytes of rows, before %d", len(got), len(want))
	}
}
