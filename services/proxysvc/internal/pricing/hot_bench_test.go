package pricing

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/hotpath"
)

// hot are the operations that every request runs, with the most that each may
// allocate.
func hot(tb testing.TB) []hotpath.Operation {
	tb.Helper()
	b, err := Default()
	if err != nil {
		tb.Fatal(err)
	}
	m, err := b.Model("claude-sonnet-4-5")
	if err != nil {
		tb.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	u := Usage{InputTokens: 500, OutputTokens: 200, CacheReadTokens: 4000, ServiceTier: "standard"}
	bound := Bound{PromptTokens: 1000, MaxTokens: 1024, CacheWrite5m: true}
	must := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return []hotpath.Operation{
		{Name: "Cost", Allocs: 0, Run: func() { _, err := m.Cost(u, at); must(err) }},
		{Name: "Breakdown", Allocs: 2, Run: func() { _, _, err := m.Breakdown(u, at); must(err) }},
		{Name: "WorstCost", Allocs: 0, Run: func() { _, err := m.WorstCost(bound, at); must(err) }},
	}
}

func BenchmarkPrice(b *testing.B) { hotpath.Bench(b, hot(b)) }
