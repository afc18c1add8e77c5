package pricing

import (
	"slices"
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
		{"reasoning is part of the output", "gpt-5", Usage{OutputTokens: 1000, ReasoningTokens: 900}, now, 10_000_000},
		{"cached input of OpenAI, with its prefix", "openai/gpt-5.4", Usage{InputTokens: 1000, CacheReadTokens: 1000}, now, 2_750_000},
		{"exactly 272,000 tokens", "gpt-5.4", Usage{InputTokens: 272_000, OutputTokens: 1000}, now, 680_000_000 + 15_000_000},
		{"272,001 tokens", "gpt-5.4", Usage{InputTokens: 272_001, OutputTokens: 1000}, now, 1_360_005_000 + 22_500_000},
		{"flex costs half", "gpt-5.4", Usage{OutputTokens: 1000, ServiceTier: "flex"}, now, 7_500_000},
		{"priority costs double", "gpt-5.4", Usage{OutputTokens: 1000, ServiceTier: "priority"}, now, 30_000_000},
		{"a model's own factor wins over the list's", "gpt-4.1", Usage{OutputTokens: 1000, ServiceTier: "priority"}, now, 14_000_000},
		{"and leaves the list's others", "gpt-4.1", Usage{OutputTokens: 1000, ServiceTier: "flex"}, now, 4_000_000},
		{"a tier that only OpenAI has does nothing to Anthropic's", "claude-opus-5-5", Usage{OutputTokens: 1000, ServiceTier: "priority"}, now, 20_000_000},
		{"before OpenAI's promotion", "gpt-5.6", Usage{OutputTokens: 1000}, time.Date(2026, 8, 20, 23, 0, 0, 0, time.UTC), 30_000_000},
		{"on the promotion's last promised day", "gpt-5.6", Usage{OutputTokens: 1000}, time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC), 20_000_000},
		{"after it: the list price", "gpt-5.6", Usage{OutputTokens: 1000}, time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), 30_000_000},
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

// TestAnthropicsRatesFollowItsRules holds the table against the rules that
// Anthropic publishes: 5-minute writes cost 1.25 × input, 1-hour writes 2 × and
// reads a tenth, with the exceptions listed here.
func TestAnthropicsRatesFollowItsRules(t *testing.T) {
	t.Parallel()
	b := book(t)
	since := time.Date(2026, 10, 7, 0, 0, 0, 0, time.UTC)
	reads := map[string]int64{ // input ÷ read
		"claude-fable-5-1": 40, "claude-mythos-5-1": 40, "claude-opus-5-5": 20,
	}
	names := b.Names("anthropic")
	for _, name := range names {
		if name == "claude-3-haiku-20240307" {
			continue // 0.3 and 0.03 instead of 0.3125 and 0.025, as published
		}
		for _, r := range b.models[name].rates {
			read := int64(10)
			if reads[name] != 0 {
				read = reads[name]
			}
			if name == "claude-sonnet-5-5" && !r.from.Before(since) {
				read = 20
			}
			for _, rates := range []Rates{r.base, r.above} {
				if rates.CacheWrite5m*4 != rates.Input*5 || rates.CacheWrite1h != rates.Input*2 || rates.CacheRead*read != rates.Input {
					t.Errorf("%s: %+v, want writes of 1.25 and 2 × the input and reads of 1/%d", name, rates, read)
				}
			}
		}
	}
	if len(names) < 25 {
		t.Errorf("only %d models of Anthropic", len(names))
	}
}

// TestOpenAIsRatesFollowItsRules: above 272,000 tokens 2 × for the prompt and
// 1.5 × for output, writes at the input's price or 1.25 ×.
func TestOpenAIsRatesFollowItsRules(t *testing.T) {
	t.Parallel()
	b := book(t)
	for _, name := range b.Names("openai") {
		m := b.models[name]
		for _, r := range m.rates {
			if w := r.base.CacheWrite5m; w != r.base.Input && w*4 != r.base.Input*5 {
				t.Errorf("%s: a write costs %d for an input of %d", name, w, r.base.Input)
			}
			if long := longContext(name); long != (r.threshold == 272_000) {
				t.Errorf("%s: a tier above %d tokens, want one above 272,000: %v", name, r.threshold, long)
			}
			if r.threshold == 0 {
				continue
			}
			want := Rates{
				Input: 2 * r.base.Input, Output: r.base.Output * 3 / 2, CacheRead: 2 * r.base.CacheRead,
				CacheWrite5m: 2 * r.base.CacheWrite5m, CacheWrite1h: 2 * r.base.CacheWrite1h,
			}
			if r.above != want {
				t.Errorf("%s: %+v above the tier, want %+v", name, r.above, want)
			}
		}
		if m.tier["flex"] != 500 || m.tier["batch"] != 500 || m.tier["priority"] < 1667 || m.tier["fast"] != m.tier["priority"] {
			t.Errorf("%s: service tiers %v", name, m.tier)
		}
	}
}

// longContext says whether a model has a context of 1.05 million tokens.
func longContext(name string) bool {
	for _, small := range []string{"gpt-5.4-mini", "gpt-5.4-nano"} {
		if strings.HasPrefix(name, small) {
			return false
		}
	}
	for _, long := range []string{"gpt-5.4", "gpt-5.5", "gpt-5.6", "gpt-6"} {
		if strings.HasPrefix(name, long) {
			return true
		}
	}
	return false
}

func TestNamesListsOneProviderSorted(t *testing.T) {
	t.Parallel()
	b := book(t)
	for provider, want := range map[string]string{"anthropic": "claude-haiku-5-5", "openai": "gpt-6.1-sol"} {
		names := b.Names(provider)
		if !slices.IsSorted(names) || !slices.Contains(names, want) {
			t.Errorf("Names(%s) = %v, want %s in a sorted list", provider, names, want)
		}
		for _, name := range names {
			if strings.HasPrefix(name, "claude-") != (provider == "anthropic") {
				t.Errorf("Names(%s) has %s", provider, name)
			}
		}
	}
	if names := b.Names("bedrock"); len(names) != 0 {
		t.Errorf("Names of an unknown provider = %v", names)
	}
}

func TestLoadRefusesBadLists(t *testing.T) {
	t.Parallel()
	const good = "version: x\nweb_search: \"0.01\"\nmodels:\n  - {names: [a], max_output_tokens: 1, multiply: {speed: {fast: \"2\"}}, rates: [{input: \"1\", output: \"1\", cache_write_5m: \"1\", cache_write_1h: \"1\", cache_read: \"1\"}]}\n"
	b, err := Load([]byte(good))
	if err != nil {
		t.Fatalf("Load of a good list: %v", err)
	}
	if names := b.Names("anthropic"); len(names) != 1 {
		t.Errorf("a list without a provider: anthropic's are %v", names)
	}
	for name, edit := range map[string][2]string{
		"a misspelt setting":                  {"input:", "imput:"},
		"a rate in words":                     {"input: \"1\"", "input: \"one\""},
		"a negative rate":                     {"input: \"1\"", "input: \"-1\""},
		"a negative price of a search":        {"0.01", "-0.01"},
		"a factor that is none":               {"fast: \"2\"", "fast: \"0\""},
		"a factor out of proportion":          {"fast: \"2\"", "fast: \"1000\""},
		"a model named twice":                 {"[a]", "[a, a]"},
		"no max_output_tokens":                {"max_output_tokens: 1", "max_output_tokens: 0"},
		"a model named in a second document":  {"version: x", good + "---\nversion: y"},
		"a second document that is not right": {"version: x", "version: x\n---\nvorsion: y"},
		"nothing at all":                      {good, ""},
	} {
		if _, err := Load([]byte(strings.Replace(good, edit[0], edit[1], 1))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
