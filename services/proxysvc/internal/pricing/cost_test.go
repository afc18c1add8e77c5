package pricing

import (
	"math"
	"math/big"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func TestWorstCost(t *testing.T) {
	t.Parallel()
	b := book(t)
	tests := []struct {
		name  string
		model string
		bound Bound
		want  money.NanoUSD
	}{
		{"input and max_tokens", "claude-sonnet-4-5", Bound{PromptTokens: 1000, MaxTokens: 1000}, 3_000_000 + 15_000_000},
		{"no max_tokens: the model's limit", "claude-sonnet-4-5", Bound{}, 64_000 * 15_000},
		{"max_tokens above the model's limit", "claude-sonnet-4-5", Bound{MaxTokens: 1_000_000}, 64_000 * 15_000},
		{"a cache is written for five minutes", "claude-sonnet-4-5", Bound{PromptTokens: 1000, MaxTokens: 1, CacheWrite5m: true}, 3_750_000 + 15_000},
		{"for an hour", "claude-sonnet-4-5", Bound{PromptTokens: 1000, MaxTokens: 1, CacheWrite5m: true, CacheWrite1h: true}, 6_000_000 + 15_000},
		{"OpenAI writes unasked", "gpt-6-sol", Bound{PromptTokens: 1000, MaxTokens: 1}, 2_500_000 + 10_000},
		{"the dearest geography", "claude-opus-5-5", Bound{MaxTokens: 1000}, 22_000_000},
		{"fast mode is asked for", "claude-opus-5-5", Bound{MaxTokens: 1000, Fast: true}, 44_000_000},
		{"fast mode is asked for where there is none", "claude-sonnet-4-5", Bound{MaxTokens: 1000, Fast: true}, 15_000_000},
		{"several answers", "gpt-5", Bound{MaxTokens: 1000, Answers: 3}, 30_000_000},
		{"each up to the model's limit", "gpt-4o", Bound{MaxTokens: 1 << 40, Answers: 2}, 2 * 16_384 * 10_000},
		{"a dearer tier", "gpt-5", Bound{MaxTokens: 1000, ServiceTier: "priority"}, 20_000_000},
		{"a cheaper tier is no promise", "gpt-5", Bound{MaxTokens: 1000, ServiceTier: "flex"}, 10_000_000},
		{"the standard tier by its name", "gpt-5", Bound{MaxTokens: 1000, ServiceTier: "default"}, 10_000_000},
		{"the provider may choose the tier", "gpt-5", Bound{MaxTokens: 1000, ServiceTier: "auto"}, 20_000_000},
		{"a tier that is not known", "gpt-4.1", Bound{MaxTokens: 1000, ServiceTier: "turbo"}, 14_000_000},
		{"a tier that is left to Anthropic", "claude-sonnet-4-5", Bound{MaxTokens: 1000, ServiceTier: "auto"}, 15_000_000},
		{"above the tier by size", "gpt-5.4", Bound{PromptTokens: 272_001, MaxTokens: 1000}, 1_360_005_000 + 22_500_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := b.WorstCost(tt.model, tt.bound, now)
			if err != nil || got != tt.want {
				t.Errorf("WorstCost = %d, %v, want %d", got, err, tt.want)
			}
		})
	}
}

func TestWorstCostIsNeverBelowTheCost(t *testing.T) {
	t.Parallel()
	b := book(t)
	for name, m := range b.models {
		for _, prompt := range []int64{0, 1, 99_999, 100_001, 200_001, 272_001, 900_000} {
			for _, tier := range []string{"", "auto", "priority", "flex"} {
				bound := Bound{PromptTokens: prompt, CacheWrite1h: true, MaxTokens: 1000, Fast: true, ServiceTier: tier}
				worst, err := b.WorstCost(name, bound, now)
				if err != nil {
					t.Fatal(err)
				}
				if tier == "auto" {
					tier = "priority"
				}
				for _, geo := range []string{"", "us", "global"} {
					for _, u := range []Usage{
						{InputTokens: prompt, OutputTokens: min(1000, m.MaxOutputTokens), InferenceGeo: geo, Speed: "fast", ServiceTier: tier},
						{CacheWrite1hTokens: prompt / 2, CacheReadTokens: prompt - prompt/2, OutputTokens: 1, InferenceGeo: geo, ServiceTier: tier},
						{CacheWrite5mTokens: prompt, InferenceGeo: geo, ServiceTier: tier},
					} {
						if cost, err := b.Cost(name, u, now); err != nil || cost > worst {
							t.Errorf("%s: Cost(%+v) = %d, %v, above WorstCost %d", name, u, cost, err, worst)
						}
					}
				}
			}
		}
	}
}

func TestCountsOutOfRangeAreErrors(t *testing.T) {
	t.Parallel()
	b := book(t)
	for name, u := range map[string]Usage{
		"negative":          {InputTokens: -1},
		"negative searches": {WebSearchRequests: -1},
		"too many":          {OutputTokens: math.MaxInt64, InputTokens: math.MaxInt64},
		"too many searches": {WebSearchRequests: math.MaxInt64},
	} {
		if cost, err := b.Cost("gpt-5.4", u, now); err == nil {
			t.Errorf("%s: Cost = %d, want an error", name, cost)
		}
	}
	if got := (Usage{InputTokens: math.MaxInt64, CacheReadTokens: 1}).PromptTokens(); got != math.MaxInt64 {
		t.Errorf("PromptTokens of more than fits = %d, want the largest number, or a tier by size is missed", got)
	}
	if worst, err := b.WorstCost("gpt-5.4", Bound{MaxTokens: 1000, Answers: math.MaxInt64}, now); err == nil {
		t.Errorf("WorstCost of too many answers = %d, want an error", worst)
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

// FuzzMonotone: more tokens never cost less, over tiers too, and no counts panic.
func FuzzMonotone(f *testing.F) {
	f.Add("claude-haiku-5-5", int64(100_000), int64(5), int64(0), int64(0), int64(0), uint8(0), int64(1), "us", "fast", "batch")
	f.Add("gpt-5.4", int64(272_000), int64(1), int64(1), int64(1), int64(1), uint8(3), int64(1), "", "", "priority")
	f.Add("o1-pro", int64(math.MaxInt64), int64(math.MaxInt64), int64(1), int64(1), int64(1), uint8(1), int64(math.MaxInt64), "", "", "auto")
	b, err := Default()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, in, out, read, w5, w1 int64, which uint8, more int64, geo, speed, tier string) {
		m, err := b.Model(name)
		if err != nil {
			return
		}
		u := Usage{
			InputTokens: in, OutputTokens: out, CacheReadTokens: read, CacheWrite5mTokens: w5, CacheWrite1hTokens: w1,
			InferenceGeo: geo, Speed: speed, ServiceTier: tier,
		}
		before, errBefore := m.Cost(u, now)
		pools := []*int64{&u.InputTokens, &u.OutputTokens, &u.CacheReadTokens, &u.CacheWrite5mTokens, &u.CacheWrite1hTokens}
		pool := pools[int(which)%len(pools)]
		if more < 0 || *pool > math.MaxInt64-more {
			return
		}
		*pool += more
		after, errAfter := m.Cost(u, now)
		if errBefore == nil && errAfter == nil && after < before {
			t.Errorf("%s: %d more tokens of pool %d: %d after %d", name, more, which, after, before)
		}
		if before < 0 || after < 0 {
			t.Errorf("%s: a cost below zero: %d, %d", name, before, after)
		}
		worst, err := m.WorstCost(Bound{PromptTokens: in, MaxTokens: out, Answers: read, ServiceTier: tier}, now)
		if err == nil && worst < 0 {
			t.Errorf("%s: WorstCost = %d", name, worst)
		}
	})
}
