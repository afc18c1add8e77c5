package store

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// watched is how many of the first logs will be counted.
func watched(t *testing.T, db *pgxpool.Pool, first int) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `select count(*) from spend.counted where log_id <= $1`, first).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRowsAreCountedOnceWhoeverCounts has replicas count all logs while rows come, and
// a key get its limit in the middle of it.
func TestRowsAreCountedOnceWhoeverCounts(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	counting, stopCounting := context.WithCancel(t.Context())
	defer stopCounting()
	var counters, clients sync.WaitGroup
	for range 3 {
		counters.Go(func() {
			for counting.Err() == nil {
				if _, err := s.Count(counting, 0); err != nil && counting.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	var stops []func()
	for range 2 {
		w, stop := startWriter(t, db, settings)
		stops = append(stops, stop)
		for client := range 4 {
			clients.Go(func() {
				for i := range 40 {
					r := request([]string{"k", "l"}[client%2], "team")
					a := &ledger.Admission{Request: r, Hold: 100}
					if i > 20 {
						a.Claims = ofKey(r.KeyID, budget(money.USD))
					}
					ticket, err := w.Admit(t.Context(), a)
					if err == nil {
						err = ticket.Settle(t.Context(), settlement(r, 7))
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	clients.Wait()
	stopCounting()
	counters.Wait()
	if a := auditClean(t, s); a.Rows != 320 || len(a.Teams) != 1 || a.Teams[0].Cost != 320*7 || a.Teams[0].Requests != 320 {
		t.Errorf("audit = %+v", a)
	}
	if n := watched(t, db, 2); n != 2 {
		t.Errorf("%d logs will be counted, want both", n)
	}
	for _, stop := range stops {
		stop()
	}
	if _, err := s.Count(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if n := watched(t, db, 2); n != 0 {
		t.Errorf("%d logs will be counted that have ended", n)
	}
	auditClean(t, s)
}

// TestWhatAKeyHasSpentIsToldToTheLastRow asks for it with one row in the totals and one
// behind them.
func TestWhatAKeyHasSpentIsToldToTheLastRow(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	defer stop()
	for range 2 {
		if _, err := s.Count(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 10, Claims: ofKey("k", budget(1000))})
	}
	ticket, err := w.Admit(t.Context(), &ledger.Admission{Request: request("k", "team"), AskSpent: true})
	if err != nil {
		t.Fatal(err)
	}
	if spent := ticket.Standing.KeySpent; spent == nil || *spent != 14 {
		t.Errorf("the key has spent %v, want 14", spent)
	}
}

// TestWhatAKeyHasSpentIsFoundByItsOwnRows asks for it with a plan that was made while there
// was nothing, and many rows of others behind the totals.
func TestWhatAKeyHasSpentIsFoundByItsOwnRows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	w, stop := startWriter(t, db, settings)
	const others, asks = 400, 20
	for range asks {
		spend(t, w, &ledger.Admission{Request: request("first", "team"), Hold: 1, AskSpent: true})
	}
	for range others {
		spend(t, w, &ledger.Admission{Request: request("other", "team"), Hold: 1})
	}
	for range asks {
		spend(t, w, &ledger.Admission{Request: request("first", "team"), Hold: 1, AskSpent: true})
	}
	stop()
	db.Reset() // a session that ends tells its counts
	var read int64
	waitFor(t, func() []bool {
		var told int64
		err := db.QueryRow(t.Context(), `select n_tup_ins, idx_tup_fetch from pg_stat_user_tables where relid = 'spend.spend_logs_default'::regclass`).Scan(&told, &read)
		if err != nil {
			t.Fatal(err)
		}
		return make([]bool, told/(others+2*asks))
	})
	if most := int64(2 * asks * 2 * asks); read > most {
		t.Errorf("%d rows were read, want %d at most", read, most)
	}
}

// TestALogThatWasJustCountedWaits counts again only after a while.
func TestALogThatWasJustCountedWaits(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	defer stop()
	for i, want := range []int64{1, 0} {
		spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 10, Claims: ofKey("k", budget(1000))})
		if i == 0 {
			exec(t, db, `update spend.counted set counted_at = now() - interval '2 hours'`)
		}
		if n, err := s.Count(t.Context(), time.Hour); err != nil || n != want {
			t.Errorf("%d rows counted, %v, want %d", n, err, want)
		}
	}
}

// TestALogThatDiedIsCountedByOthers fences a log whose rows nobody has counted.
func TestALogThatDiedIsCountedByOthers(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 10, Claims: ofKey("k", budget(1000))})
	exec(t, db, `update spend.logs set fenced_at = now(), settler = log_id`)
	if n, err := s.Count(t.Context(), 0); err != nil || n != 1 {
		t.Errorf("%d rows counted, %v, want 1", n, err)
	}
	if n := watched(t, db, 1); n != 0 {
		t.Errorf("%d logs will be counted again", n)
	}
	stop()
	auditClean(t, s)
}

// TestRowsOfEarlierReleasesAreNotCountedTwice has rows and their totals written as
// releases do that know nothing of the totals' being behind, before and after the
// migration.
func TestRowsOfEarlierReleasesAreNotCountedTwice(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, before(t, "0010_totals_behind.sql"))
	s := New(db)
	exec(t, db, `insert into spend.logs (instance) values ('old')`)
	exec(t, db, `
		create procedure spend.settle_as_before() language sql as $$
		  select spend.advance(1, batch + 1, 1) from spend.logs where log_id = 1;
		  insert into spend.spend_logs (log_id, day, seq, request_id, message_id, upstream_request_id, key_id, token, team_id, user_id,
		    model_group, model, model_id, price_version, stream, started_at, ended_at, request_tags, user_agent, input_tokens, output_tokens,
		    cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests, speed, inference_geo,
		    service_tier, cost_nano_usd, status, estimated, stop_reason, http_status, error_type)
		  select 1, current_date, last_seq, 'old' || last_seq, '', '', 'k', 't', 'team', '', 'm', 'm', 'd', '1', false, now(), now(), '[]', '', 1, 2,
		    0, 0, 0, 0, '', '', '', 7, 'completed', false, '', 200, '' from spend.logs where log_id = 1;
		  insert into spend.account_totals as t
		    (kind, id, log_id, day, requests, cost_nano_usd, input_tokens, output_tokens, cache_read_input_tokens,
		     cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests)
		  select kind, id, 1, current_date, 1, 7, 1, 2, 0, 0, 0, 0
		  from (values ('key', 'k'), ('team', 'team'), ('model', 'm'), ('team_model', E'team\nm')) v (kind, id)
		  on conflict (kind, id, day, log_id) do update set requests = t.requests + 1, cost_nano_usd = t.cost_nano_usd + 7;
		$$`)
	exec(t, db, `call spend.settle_as_before()`)
	err := db.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error { return pgmigrate.Up(t.Context(), c.Conn(), Schema, Migrations) })
	if err != nil {
		t.Fatal(err)
	}
	exec(t, db, `call spend.settle_as_before()`)
	w, stop := startWriter(t, db, settings)
	spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 10, Claims: ofKey("k", budget(1000))})
	stop()
	if a := auditClean(t, s); a.Rows != 3 || len(a.Teams) != 1 || a.Teams[0].Cost != 21 || a.Teams[0].Requests != 3 {
		t.Errorf("audit = %+v", a)
	}
}

// TestALongTailIsReadForTheKeysThatHaveRows has so many rows behind the totals that a key
// is looked up before they are read.
func TestALongTailIsReadForTheKeysThatHaveRows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	s := New(db)
	w, stop := startWriter(t, db, settings)
	defer stop()
	for range 40 {
		spend(t, w, &ledger.Admission{Request: request("k", "team"), Hold: 100, Tokens: 10, Claims: ofKey("k", budget(1000))})
	}
	for id, want := range map[string]money.NanoUSD{"k": 280, "new": 0} {
		sum, err := s.Summary(t.Context(), ledger.AccountID{Kind: ledger.KindKey, ID: id})
		if err != nil || sum.Spent != want {
			t.Errorf("%s has spent %v, %v, want %v", id, sum.Spent, err, want)
		}
	}
	all, err := s.Uses(t.Context(), ledger.UseQuery{Kind: ledger.KindKey})
	if err != nil || len(all) != 1 || all[0].Cost != 280 {
		t.Errorf("all keys: %+v, %v", all, err)
	}
}
