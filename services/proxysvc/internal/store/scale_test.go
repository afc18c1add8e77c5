package store

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// generate fills thirty days with rows of 200 teams, sessions of 50 requests and
// four models, and keeps their totals as the writers of four logs would have.
const generate = `
insert into spend.spend_logs (day, log_id, seq, request_id, message_id, upstream_request_id, key_id, token, team_id, user_id,
  model_group, model, model_id, price_version, stream, started_at, first_byte_at, ended_at, request_tags, user_agent,
  input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens,
  web_search_requests, speed, inference_geo, service_tier, cost_nano_usd, status, estimated, stop_reason, http_status, error_type)
select (at at time zone 'UTC')::date, 1 + n % 4, 1 + n / 4, 'req_' || n, 'msg_' || n, '', 'key_' || n / 50, md5((n / 50)::text), 'team_' || n / 50 % 200,
  'session_' || n / 50, 'm' || n % 4, 'm' || n % 4, 'd', '1', true, at, at, at, '[]', 'claude-cli/2.1.330',
  100 + n % 1000, n % 500, 10000, 0, 0, 0, '', '', '', 1000000 + n % 1000000, 'completed', false, 'end_turn', 200, ''
from (select n, date_trunc('day', now()) - interval '29 days' + interval '30 days' * n / $1 as at from generate_series(0, $1 - 1) n) g`

const generateTotals = `
insert into spend.account_totals (kind, id, log_id, day, requests, cost_nano_usd, input_tokens, output_tokens,
  cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests)
select v.kind, v.id, log_id, day, count(*), sum(cost_nano_usd), sum(input_tokens), sum(output_tokens), sum(cache_read_input_tokens), 0, 0, 0
from spend.spend_logs, lateral (values ('key', key_id), ('team', team_id), ('user', user_id), ('model', model), ('team_model', team_id || E'\n' || model)) v (kind, id)
group by 1, 2, 3, 4`

// BenchmarkReports times the reports over SCALE_ROWS rows (200,000 unless it is
// set) and shows the plan of the largest: none of them looks at a row of
// spend_logs.
func BenchmarkReports(b *testing.B) {
	rows := 200_000
	if text := os.Getenv("SCALE_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	db := pgtest.New(b, Schema, Migrations)
	s := New(db)
	begin := time.Now()
	if err := s.EnsurePartitions(b.Context(), time.Now().Add(-30*24*time.Hour), 32); err != nil {
		b.Fatal(err)
	}
	for _, sql := range []string{generate, generateTotals} {
		args := []any{rows}
		if sql == generateTotals {
			args = nil
		}
		if _, err := db.Exec(b.Context(), sql, args...); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := db.Exec(b.Context(), `vacuum analyze spend.account_totals`); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d rows generated in %s", rows, time.Since(begin).Round(time.Second))
	month := time.Now().Add(-29 * 24 * time.Hour)
	for name, q := range map[string]ledger.UseQuery{
		"all teams, 30 days":    {Kind: ledger.KindTeam, Days: ledger.Days{From: month}},
		"one team, 30 days":     {Kind: ledger.KindTeam, IDs: []string{"team_7"}, Days: ledger.Days{From: month}},
		"all models, 30 days":   {Kind: ledger.KindModel, Days: ledger.Days{From: month}},
		"one session":           {Kind: ledger.KindUser, IDs: []string{"session_7"}},
		"all sessions of a day": {Kind: ledger.KindUser, Days: ledger.Days{From: month, To: month}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Uses(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("where a key stands", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Summary(b.Context(), ledger.AccountID{Kind: ledger.KindKey, ID: "key_7"}); err != nil {
				b.Fatal(err)
			}
		}
	})
	plan, _ := db.Query(b.Context(), `explain (analyze, buffers, costs off) select id, day, sum(requests), sum(cost_nano_usd)
		from spend.account_totals where kind = 'team' and day >= $1 group by id, day order by day, id`, month)
	lines, err := pgx.CollectRows(plan, pgx.RowTo[string])
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("all teams, 30 days:\n%s", strings.Join(lines, "\n"))
}
