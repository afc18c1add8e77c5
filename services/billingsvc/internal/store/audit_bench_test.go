package store_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

var auditRows = flag.Int("audit.rows", 100_000, "events that BenchmarkAudit audits, a multiple of 50,000")

// fill writes books of n events in charges of 50, of a thousand teams and one
// log.
func (b *bench) fill(n int) {
	b.t.Helper()
	if _, err := store.New(b.pool).EnsurePartitions(b.t.Context(), noon); err != nil {
		b.t.Fatal(err)
	}
	for _, sql := range []string{
		`insert into billing.balances (team_id, billed_nano_usd, charged_nano_usd, next_charge_seq)
			select 'team' || t, %[1]d / 1000 * 30, %[1]d / 1000 * 30, %[1]d / 50000 + 1 from generate_series(0, 999) t`,
		`insert into billing.cursors (log_id, seq) values (1, %[1]d)`,
		`insert into billing.billing_events (day, idempotency_key, organization_id, event_type, quantity, cost_nano_usd, price_nano_usd,
				markup, session_ids, metadata, charge_id, log_id, seq, occurred_at, created_at)
			select '2026-11-24', 'llm:req_' || lpad(i::text, 26, '0'), 'team' || i / 50 %% 1000, 'llm', 15, 10, 30, '3', '{session_1}',
				'{"model": "claude", "usage": {"input_tokens": 10, "output_tokens": 5}}', 'charge' || lpad((i / 50)::text, 12, '0'),
				1, i + 1, '2026-11-24 12:00:00Z', '2026-11-24 12:00:00Z'
			from generate_series(0, %[1]d - 1) i`,
		`insert into billing.charges (charge_id, team_id, seq, amount_nano_usd, carried_nano_usd, event_count, checksum, frozen_at, due_at)
			select charge_id, 'team' || c %% 1000, c / 1000 + 1, 1500, 0, 50, e.checksum, now(), now()
			from generate_series(0, %[1]d / 50 - 1) c
			cross join lateral (select 'charge' || lpad(c::text, 12, '0') as charge_id) k
			cross join lateral (
				select encode(sha256(convert_to(string_agg(
					idempotency_key || '=' || price_nano_usd || E'\n', '' order by idempotency_key), 'UTF8')), 'hex') as checksum
				from billing.billing_events where billing_events.charge_id = k.charge_id
			) e`,
		`analyze -- %[1]d events`,
	} {
		start := time.Now()
		b.exec(fmt.Sprintf(sql, n))
		b.t.Logf("%s: %.40s", time.Since(start).Round(time.Millisecond), sql)
	}
}

// BenchmarkAudit audits everything once, and then what came since, again and
// again: 1 % of it.
func BenchmarkAudit(b *testing.B) {
	bench := newBench(b, 1)
	n := *auditRows
	bench.fill(n)
	start := time.Now()
	if a := bench.audit(); len(a.Faults) > 0 || a.Checked != int64(n) {
		b.Fatalf("audit checked %d of %d: %v", a.Checked, n, a.Faults)
	}
	full := time.Since(start)
	var took time.Duration
	turns := 0
	for b.Loop() {
		// The marks of ten teams are forgotten, and so are their rows.
		bench.exec(`with gone as (delete from billing.audit_marks where team_id like 'team_' returning events)
			update billing.audit_log_marks set rows = rows - (select sum(events) from gone),
				seq_sum = seq_sum - (select sum(seq) from billing.billing_events where organization_id like 'team_')`)
		start := time.Now()
		a, err := bench.svc.Audit(b.Context(), false)
		if err != nil || len(a.Faults) > 0 || a.Checked != int64(n/100) {
			b.Fatalf("audit checked %d, %v, %v, want %d", a.Checked, a.Faults, err, n/100)
		}
		took, turns = took+time.Since(start), turns+1
	}
	b.ReportMetric(full.Seconds(), "s/full")
	b.ReportMetric(took.Seconds()/float64(turns), "s/incremental")
}
