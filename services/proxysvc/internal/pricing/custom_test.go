package pricing

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func TestCustomPrices(t *testing.T) {
	t.Parallel()
	b := book(t)
	own := PerToken{Input: "1e-06", Output: "0.000002"}
	all := Usage{InputTokens: 1000, OutputTokens: 1000, CacheReadTokens: 1000, CacheWrite5mTokens: 1000, CacheWrite1hTokens: 1000}
	tests := []struct {
		name  string
		base  string
		own   Overrides
		usage Usage
		want  money.NanoUSD
	}{
		{"a model that the list has not: caches follow its input", "mine", Overrides{PerToken: own}, all, 1_000_000 + 2_000_000 + 1_000_000 + 1_250_000 + 2_000_000},
		{"every rate of its own", "mine", Overrides{PerToken: PerToken{"1e-6", "1e-6", "3e-6", "4e-6", "1e-7"}}, all, 1_000_000 + 1_000_000 + 3_000_000 + 4_000_000 + 100_000},
		{"what is not given comes from the list", "anthropic/claude-sonnet-4-5", Overrides{PerToken: PerToken{Output: "1e-06"}}, all, 3_000_000 + 1_000_000 + 300_000 + 3_750_000 + 6_000_000},
		{"nothing given: the list's price under another name", "claude-sonnet-4-5", Overrides{}, all, 3_000_000 + 15_000_000 + 300_000 + 3_750_000 + 6_000_000},
		{"the list's tier by size stays", "claude-haiku-5-5", Overrides{PerToken: own}, Usage{InputTokens: 100_001}, 50_000_500},
		{"and can be replaced", "claude-haiku-5-5", Overrides{AbovePromptTokens: 100_000, Above: PerToken{Input: "1e-06"}}, Usage{InputTokens: 100_001, OutputTokens: 1000}, 100_001_000 + 2_500_000},
		{"or moved", "claude-haiku-5-5", Overrides{AbovePromptTokens: 50_000, Above: PerToken{Output: "1e-06"}}, Usage{InputTokens: 50_001, OutputTokens: 1000}, 5_000_100 + 1_000_000},
		{"a tier of a model that the list has not", "mine", Overrides{PerToken: own, AbovePromptTokens: 10, Above: PerToken{Input: "2e-06"}}, Usage{InputTokens: 1, CacheReadTokens: 10, OutputTokens: 1}, 2000 + 20_000 + 2000},
		{"a write at the half of the smallest unit rounds up", "mine", Overrides{PerToken: PerToken{Input: "1e-15", Output: "0"}}, Usage{CacheWrite5mTokens: 1_000_000}, 2},
		{"free on purpose", "mine", Overrides{PerToken: PerToken{Input: "0", Output: "0.0"}}, all, 0},
		{"factors of the list stay", "gpt-5", Overrides{PerToken: own}, Usage{OutputTokens: 1000, ServiceTier: "priority"}, 4_000_000},
		{"searches have a price", "mine", Overrides{PerToken: own}, Usage{WebSearchRequests: 1}, 10_000_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := b.Custom(tt.base, tt.own)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := m.Cost(tt.usage, now); err != nil || got != tt.want {
				t.Errorf("Cost = %d, %v, want %d", got, err, tt.want)
			}
		})
	}
}

func TestCustomPricesLeaveTheListAlone(t *testing.T) {
	t.Parallel()
	b := book(t)
	u := Usage{OutputTokens: 1000, CacheReadTokens: 1000}
	before, err := b.Cost("claude-sonnet-5-5", u, now)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.Custom("claude-sonnet-5-5", Overrides{PerToken: PerToken{Output: "1e-06"}, MaxOutputTokens: 10})
	if err != nil {
		t.Fatal(err)
	}
	if after, err := b.Cost("claude-sonnet-5-5", u, now); err != nil || after != before {
		t.Errorf("the list's cost = %d, %v, want %d as before", after, err, before)
	}
	old := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	if got, err := m.Cost(u, old); err != nil || got != 1_000_000+200_000 {
		t.Errorf("Cost before the list's change = %d, %v, want its old cache rate", got, err)
	}
	if got, err := m.WorstCost(Bound{}, now); err != nil || got != 11_000 {
		t.Errorf("WorstCost = %d, %v, want ten tokens in the dearest geography", got, err)
	}
}

func TestALimitThatIsNotKnownIsALargeOne(t *testing.T) {
	t.Parallel()
	m, err := book(t).Custom("mine", Overrides{PerToken: PerToken{Input: "0", Output: "1e-06"}})
	if err != nil {
		t.Fatal(err)
	}
	for maxTokens, want := range map[int64]money.NanoUSD{0: 128_000_000, 10: 10_000, 1_000_000: 1_000_000_000} {
		if got, err := m.WorstCost(Bound{MaxTokens: maxTokens}, now); err != nil || got != want {
			t.Errorf("WorstCost of max_tokens %d = %d, %v, want %d", maxTokens, got, err, want)
		}
	}
}

func TestCustomRefusesBadPrices(t *testing.T) {
	t.Parallel()
	b := book(t)
	for name, tt := range map[string]struct {
		own  Overrides
		says string
	}{
		"no input":                     {Overrides{PerToken: PerToken{Output: "1e-06"}}, "needed"},
		"no output":                    {Overrides{PerToken: PerToken{Input: "1e-06"}}, "needed"},
		"a word":                       {Overrides{PerToken: PerToken{Input: "cheap", Output: "0"}}, "cheap"},
		"a negative price":             {Overrides{PerToken: PerToken{Input: "-1e-06", Output: "0"}}, "negative"},
		"more digits than can be held": {Overrides{PerToken: PerToken{Input: "1.5e-15", Output: "0"}}, "15 decimals"},
		"a price per million":          {Overrides{PerToken: PerToken{Input: "3", Output: "0"}}, "per million"},
		"more than fits":               {Overrides{PerToken: PerToken{Input: "1e300", Output: "0"}}, "1e300"},
		"infinity":                     {Overrides{PerToken: PerToken{Input: ".inf", Output: "0"}}, ".inf"},
		"a bad price above a tier":     {Overrides{PerToken: PerToken{Input: "0", Output: "0"}, AbovePromptTokens: 1, Above: PerToken{CacheRead: "x"}}, "cache read"},
		"a tier below nothing":         {Overrides{PerToken: PerToken{Input: "0", Output: "0"}, AbovePromptTokens: -1}, "-1"},
	} {
		if m, err := b.Custom("mine", tt.own); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %+v, %v, want an error with %q", name, m, err, tt.says)
		}
	}
}

// FuzzCustom compares rates that are taken with those of math/big.
func FuzzCustom(f *testing.F) {
	for _, text := range []string{"3e-06", "0.000003", "1.5e-15", "-0", "+1e-6", "1e-7x", ".5e-6", "0x1p-20", "1_0e-7", "9e-3", "", "1e-400", "0e400", "Ⅷe-6"} {
		f.Add(text, int64(1_000_000))
	}
	b, err := Default()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string, tokens int64) {
		m, err := b.Custom("mine", Overrides{PerToken: PerToken{Input: text, Output: "0"}})
		if err != nil {
			return
		}
		rate, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%q is taken for a price", text)
		}
		cost, err := m.Cost(Usage{InputTokens: tokens}, now)
		if err != nil {
			if tokens >= 0 && tokens < 1<<40 {
				t.Errorf("Cost of %d tokens at %q: %v", tokens, text, err)
			}
			return
		}
		exact := rate.Mul(rate, new(big.Rat).SetInt64(tokens))
		exact.Mul(exact, big.NewRat(int64(money.USD), 1))
		off := exact.Sub(exact, new(big.Rat).SetInt64(int64(cost)))
		if off.Abs(off).Cmp(big.NewRat(1, 2)) > 0 {
			t.Errorf("Cost of %d tokens at %q = %d, off by %s", tokens, text, cost, off.FloatString(3))
		}
	})
}
