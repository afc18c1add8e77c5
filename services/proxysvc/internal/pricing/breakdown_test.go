package pricing

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func TestABreakdownSumsUpToTheCost(t *testing.T) {
	t.Parallel()
	book, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	names := append(book.Names("anthropic"), book.Names("openai")...)
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, err := book.Model(names[r.IntN(len(names))])
		if err != nil {
			t.Fatal(err)
		}
		u := Usage{
			InputTokens: r.Int64N(200_000), OutputTokens: r.Int64N(9000), CacheReadTokens: r.Int64N(100_000), CacheWrite5mTokens: r.Int64N(999),
			CacheWrite1hTokens: r.Int64N(3), WebSearchRequests: r.Int64N(3), InferenceGeo: []string{"", "us"}[r.IntN(2)], Speed: []string{"", "fast"}[r.IntN(2)],
		}
		cost, err := m.Cost(u, at)
		if err != nil {
			t.Fatal(err)
		}
		total, parts, err := m.Breakdown(u, at)
		if err != nil || total != cost {
			t.Fatalf("seed %d: %d, %v, the cost is %d", seed, total, err, cost)
		}
		var sum money.NanoUSD
		exact := 0
		for name, pool := range map[string]Usage{
			"input": {InputTokens: u.InputTokens}, "output": {OutputTokens: u.OutputTokens}, "cache_read": {CacheReadTokens: u.CacheReadTokens},
			"cache_write_5m": {CacheWrite5mTokens: u.CacheWrite5mTokens}, "cache_write_1h": {CacheWrite1hTokens: u.CacheWrite1hTokens},
			"web_search": {WebSearchRequests: u.WebSearchRequests},
		} {
			alone, err := m.sum(pool, m.ratesOf(u, at), m.scaleOf(u))
			if err != nil {
				t.Fatal(err)
			}
			if d := parts[name] - alone; d < -3 || d > 3 {
				t.Errorf("seed %d: %s costs %d of the whole, and %d alone", seed, name, parts[name], alone)
			} else if d == 0 {
				exact++
			}
		}
		if exact < 5 {
			t.Errorf("seed %d: %d parts cost what they do alone, want all but the largest", seed, exact)
		}
		for name, part := range parts {
			if part <= 0 {
				t.Errorf("seed %d: %s costs %d", seed, name, part)
			}
			sum += part
		}
		if sum != cost {
			t.Errorf("seed %d: the parts sum to %d, the cost is %d", seed, sum, cost)
		}
	}
}
