package store_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// flood is a SpendLog whose logs grow by a step whenever they are listed, of a
// thousand teams.
type flood struct {
	logs, step int64
	last       int64
}

const floodTeams = 1000

func (f *flood) Logs(_ context.Context, after int64) ([]billing.Log, error) {
	if after > 0 {
		return nil, nil
	}
	f.last += f.step
	var list []billing.Log
	for id := int64(1); id <= f.logs; id++ {
		list = append(list, billing.Log{LogID: id, LastSeq: f.last})
	}
	return list, nil
}

func (f *flood) Read(_ context.Context, logID, after int64) (billing.Page, error) {
	const page = 5000 // the most that SpendService gives
	end := min(after+page, f.last)
	p := billing.Page{LogID: logID, AfterSeq: after, LastSeq: f.last, Rows: make([]billing.Row, 0, end-after)}
	for seq := after + 1; seq <= end; seq++ {
		p.Rows = append(p.Rows, billing.Row{
			LogID: logID, Seq: seq, RequestID: fmt.Sprintf("req_%02d%024d", logID, seq), TeamID: fmt.Sprint("team", seq*7919%floodTeams),
			UserID: "session_0123456789", KeyID: "key_0123456789", Model: "claude-sonnet", PriceVersion: "2026-11",
			Usage:       billing.Usage{InputTokens: 1000 + seq%7, OutputTokens: 300, CacheReadInputTokens: 20_000},
			CostNanoUSD: money.NanoUSD(1_000_003 + seq%1009), EndedAt: noon, Status: "SPEND_STATUS_COMPLETED",
		})
	}
	return p, nil
}

// BenchmarkSync bills 40,000 rows of two logs and a thousand teams a turn:
// events, balances, charges. It prints how many events a second that is.
func BenchmarkSync(b *testing.B) {
	bench := newBench(b, 1)
	bench.opt.Batch = 20_000
	bench.opt.Rules.Limits = billing.Limits{Events: 50_000, Amount: 10_000 * money.Credit}
	svc := bench.over(&flood{logs: 2, step: 20_000})
	var events, charges int64
	var most uint64
	start := time.Now()
	for b.Loop() {
		r, err := svc.Sync(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		events, charges = events+r.Events, charges+r.Charges
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		most = max(most, mem.HeapInuse)
	}
	b.ReportMetric(float64(events)/time.Since(start).Seconds(), "events/s")
	b.ReportMetric(float64(events)/float64(charges), "events/charge")
	b.ReportMetric(float64(most)/(1<<20), "MiB-heap")
}
