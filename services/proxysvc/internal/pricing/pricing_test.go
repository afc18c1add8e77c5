package pricing

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func book(t *testing.T) *Book {
	t.Helper()
	b, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func TestCost(t *testing.T) {
	t.Parallel()
	b := book(t)
	tests := []struct {
		name  string
		model string
		usage Usage
		at    time.Time
		want  money.NanoUSD
	}{
		{
			"every pool at its own rate", "claude-sonnet-4-5",
			Usage{InputTokens: 1000, OutputTokens: 1000, CacheReadTokens: 1000, CacheWrite5mTokens: 1000, CacheWrite1hTokens: 1000},
			now, 3_000_000 + 15_000_000 + 300_000 + 3_750_000 + 6_000_000,
		},
		{"a dated name, a prefix and a context marker", "anthropic/claude-haiku-4-5-20251001[1m]", Usage{InputTokens: 1}, now, 1000},
		{"exactly at the tier's edge: the low rate", "claude-haiku-5-5", Usage{InputTokens: 90_000, CacheReadTokens: 10_000}, now, 9_000_000 + 100_000},
		{
			"one token above it: every token at the high rate, output too", "claude-haiku-5-5",
			Usage{InputTokens: 90_001, CacheReadTokens: 10_000, OutputTokens: 1000},
			now, 45_000_500 + 500_000 + 2_500_000,
		},
		{"before a rate's first day", "claude-sonnet-5-5", Usage{CacheReadTokens: 1_000_000}, time.Date(2026, 10, 6, 23, 59, 59, 0, time.UTC), 200_000_000},
		{"on a rate's first day", "claude-sonnet-5-5", Usage{CacheReadTokens: 1_000_000}, time.Date(2026, 10, 7, 0, 0, 0, 0, time.UTC), 100_000_000},
		{
			"fast and in the us: both factors, cache too", "claude-opus-5-5",
			Usage{InputTokens: 1000, CacheReadTokens: 1000, Speed: "fast", InferenceGeo: "us"},
			now, 9_240_000,
		},
		{"a geography without a surcharge", "claude-opus-5-5", Usage{InputTokens: 1000, InferenceGeo: "global"}, now, 4_000_000},
		{"searches are not multiplied", "claude-opus-5-5", Usage{WebSearchRequests: 3, Speed: "fast"}, now, 30_000_000},
		{"a batch costs half", "claude-opus-5-5", Usage{OutputTokens: 10, ServiceTier: "batch"}, now, 100_000},
		{
			"half a nano-dollar rounds up, once", "claude-haiku-5-5",
			Usage{CacheReadTokens: 1, CacheWrite5mTokens: 1, InferenceGeo: "us"},
			now, 149,
		}, // 135 × 1.1 = 148.5
		{"nothing used", "claude-opus-5-5", Usage{}, now, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := b.Cost(tt.model, tt.usage, tt.at)
			if err != nil || got != tt.want {
				t.Errorf("Cost = %d, %v, want %d", got, err, tt.want)
			}
		})
	}
}

func TestAModelWithoutAPriceIsNeverFree(t *testing.T) {
	t.Parallel()
	_, err := book(t).Cost("claude-unknown-9", Usage{}, now)
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("Cost of an unknown model: %v, want NotFound", err)
	}
}

// TestCacheRatesFollowAnthropicsRule holds the table against the rules that
// Anthropic publishes: 5-minute writes cost 1.25 × input and 1-hour writes 2 ×.
func TestCacheRatesFollowAnthropicsRule(t *testing.T) {
	t.Parallel()
	for name, m := range book(t).models {
		if name == "claude-3-haiku-20240307" {
			continue // 0.3 instead of 0.3125, as published
		}
		for _, r := range m.rates {
			for _, rates := range []Rates{r.base, r.above} {
				if rates.CacheWrite5m*4 != rates.Input*5 || rates.CacheWrite1h != rates.Input*2 {
					t.Errorf("%s: writes %d and %d for input %d", name, rates.CacheWrite5m, rates.CacheWrite1h, rates.Input)
				}
			}
		}
	}
}

func TestWorstCostIsNeverBelowTheCost(t *testing.T) {
	t.Parallel()
	b := book(t)
	for name, m := range b.models {
		for _, prompt := range []int64{0, 1, 99_999, 100_001, 200_001, 900_000} {
			bound := Bound{PromptTokens: prompt, CacheWrite1h: true, MaxTokens: 1000, Fast: true}
			worst, err := b.WorstCost(name, bound, now)
			if err != nil {
				t.Fatal(err)
			}
			for geo := range map[string]bool{"": true, "us": true, "global": true} {
				for _, u := range []Usage{
					{InputTokens: prompt, OutputTokens: min(1000, m.MaxOutputTokens), InferenceGeo: geo, Speed: "fast"},
					{CacheWrite1hTokens: prompt / 2, CacheReadTokens: prompt - prompt/2, OutputTokens: 1, InferenceGeo: geo},
				} {
					if cost, err := b.Cost(name, u, now); err != nil || cost > worst {
						t.Errorf("%s: Cost(%+v) = %d, %v, above WorstCost %d", name, u, cost, err, worst)
					}
				}
			}
		}
	}
}

// FuzzCost compares with a second, naive implementation over math/big.
func FuzzCost(f *testing.F) {
	f.Add(int64(1), int64(2), int64(3), int64(4), int64(5), int64(1), true, true)
	f.Add(int64(1)<<40, int64(1)<<40, int64(0), int64(7), int64(1), int64(0), false, true)
	b, err := Default()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in, out, read, w5, w1, searches int64, fast, us bool) {
		for _, n := range []int64{in, out, read, w5, w1, searches} {
			if n < 0 || n > 1<<40 {
				return
			}
		}
		u := Usage{InputTokens: in, OutputTokens: out, CacheReadTokens: read, CacheWrite5mTokens: w5, CacheWrite1hTokens: w1, WebSearchRequests: searches}
		want := new(big.Rat)
		for tokens, usd := range map[*int64]string{&in: "4", &out: "20", &read: "0.2", &w5: "5", &w1: "8"} {
			rate, _ := new(big.Rat).SetString(usd)
			want.Add(want, rate.Mul(rate, new(big.Rat).SetInt64(*tokens)))
		}
		if fast {
			u.Speed = "fast"
			want.Mul(want, big.NewRat(2, 1))
		}
		if us {
			u.InferenceGeo = "us"
			want.Mul(want, big.NewRat(11, 10))
		}
		want.Mul(want, big.NewRat(1000, 1)) // USD per million → nano-dollars
		want.Add(want, new(big.Rat).Mul(big.NewRat(10_000_000, 1), new(big.Rat).SetInt64(searches)))
		rounded := new(big.Int).Div(new(big.Int).Add(new(big.Int).Mul(want.Num(), big.NewInt(2)), want.Denom()),
			new(big.Int).Mul(want.Denom(), big.NewInt(2)))
		got, err := b.Cost("claude-opus-5-5", u, now)
		if err != nil {
			if rounded.IsInt64() {
				t.Errorf("Cost(%+v): %v, want %s", u, err, rounded)
			}
			return
		}
		if rounded.Cmp(big.NewInt(int64(got))) != 0 {
			t.Errorf("Cost(%+v) = %d, want %s", u, got, rounded)
		}
	})
}

func TestLoadRefusesBadLists(t *testing.T) {
	t.Parallel()
	const good = "version: x\nweb_search: \"0.01\"\nmodels:\n  - {names: [a], max_output_tokens: 1, rates: [{input: \"1\", output: \"1\", cache_write_5m: \"1\", cache_write_1h: \"1\", cache_read: \"1\"}]}\n"
	if _, err := Load([]byte(good)); err != nil {
		t.Fatalf("Load of a good list: %v", err)
	}
	for name, edit := range map[string][2]string{
		"a misspelt setting":   {"input:", "imput:"},
		"a rate in words":      {"input: \"1\"", "input: \"one\""},
		"a negative rate":      {"input: \"1\"", "input: \"-1\""},
		"a model named twice":  {"[a]", "[a, a]"},
		"no max_output_tokens": {"max_output_tokens: 1", "max_output_tokens: 0"},
	} {
		if _, err := Load([]byte(strings.Replace(good, edit[0], edit[1], 1))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
