package store_test

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// BenchmarkLease carries charges of a thousand teams that have fifty open charges
// each, one a turn as an outbox with one free place does: leased, marked as sent,
// settled.
func BenchmarkLease(b *testing.B) {
	bench := newBench(b, 1)
	bench.openCharges(1000, 50)
	var leasing time.Duration
	turns := 0
	for b.Loop() {
		start := time.Now()
		leases, err := bench.svc.Lease(b.Context(), "worker", 1, time.Minute, true)
		leasing, turns = leasing+time.Since(start), turns+1
		if err != nil || len(leases) != 1 {
			b.Fatalf("Lease = %d charges, %v, want 1", len(leases), err)
		}
		if _, err := bench.svc.MarkSent(b.Context(), leases[0].Charge.ChargeID, leases[0].Token, billing.Via{Device: "autumn/lock", Key: "key"}); err != nil {
			b.Fatal(err)
		}
		bench.settle(leases[0], billing.Settlement{Outcome: billing.Applied, Proof: "deductions"})
	}
	b.ReportMetric(float64(leasing.Microseconds())/1000/float64(turns), "ms/lease")
}

// openCharges writes charges that wait, of some teams, as many each.
func (b *bench) openCharges(teams, each int) {
	b.t.Helper()
	b.execWith(`insert into billing.balances (team_id, billed_nano_usd, charged_nano_usd, next_charge_seq)
		select 'team' || t, $2::bigint * 1500, $2::bigint * 1500, $2::bigint + 1 from generate_series(1, $1::bigint) t`, teams, each)
	b.execWith(`insert into billing.charges (charge_id, team_id, seq, amount_nano_usd, carried_nano_usd, event_count, checksum, frozen_at, due_at)
		select 'charge' || lpad((s * $1::bigint + t)::text, 12, '0'), 'team' || t, s, 1500, 0, 50, 'none', now(), '2026-11-24'::timestamptz + s * interval '1 minute' + t * interval '1 ms'
		from generate_series(1, $1::bigint) t, generate_series(1, $2::bigint) s`, teams, each)
	b.exec("analyze")
}

func (b *bench) execWith(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}
