package config

import (
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

var now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func TestPricesOfAnEntry(t *testing.T) {
	t.Parallel()
	all := pricing.Usage{InputTokens: 1000, OutputTokens: 1000, CacheReadTokens: 1000, CacheWrite5mTokens: 1000, CacheWrite1hTokens: 1000}
	tests := []struct {
		name, entry string
		usage       pricing.Usage
		want        money.NanoUSD
	}{
		{
			"in litellm_params", "litellm_params: {model: anthropic/mine, input_cost_per_token: 1e-06, output_cost_per_token: 0.000002}",
			all, 1_000_000 + 2_000_000 + 1_000_000 + 1_250_000 + 2_000_000,
		},
		{
			"model_info wins, rate by rate", "litellm_params: {model: mine, input_cost_per_token: 1e-06, output_cost_per_token: 0.000002}, model_info: {input_cost_per_token: 3e-06, cache_read_input_token_cost: 1e-07, cache_creation_input_token_cost: 1e-06, cache_creation_input_token_cost_above_1hr: 1e-06}",
			all, 3_000_000 + 2_000_000 + 100_000 + 1_000_000 + 1_000_000,
		},
		{
			"another entry of the price list", "litellm_params: {model: my-sonnet}, model_info: {base_model: anthropic/claude-sonnet-4-5}",
			all, 3_000_000 + 15_000_000 + 300_000 + 3_750_000 + 6_000_000,
		},
		{
			"one rate of its own", "litellm_params: {model: claude-sonnet-4-5, output_cost_per_token: '1e-05'}",
			all, 3_000_000 + 10_000_000 + 300_000 + 3_750_000 + 6_000_000,
		},
		{
			"a tier by size of prompt", "litellm_params: {model: mine, input_cost_per_token: 1e-06, output_cost_per_token: 1e-06, input_cost_per_token_above_200k_tokens: 2e-06, cache_creation_input_token_cost_above_1hr_above_200k_tokens: 9e-06}",
			pricing.Usage{InputTokens: 200_000, CacheWrite1hTokens: 1000},
			400_000_000 + 9_000_000,
		},
		{
			"of a wildcard", `litellm_params: {model: "openai/*", input_cost_per_token: 1e-06, output_cost_per_token: 1e-06}`,
			pricing.Usage{InputTokens: 1000},
			1_000_000,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := read(t, `model_list: [{model_name: "*", `+tt.entry+"}]").Deployments[0].Price
			if p == nil {
				t.Fatal("the entry has no price of its own")
			}
			if got, err := p.Cost(tt.usage, now); err != nil || got != tt.want {
				t.Errorf("Cost = %d, %v, want %d", got, err, tt.want)
			}
		})
	}
}

func TestALimitOfAnEntryBoundsItsWorstCase(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		info string
		want money.NanoUSD
	}{
		"max_output_tokens":           {"max_output_tokens: 100", 1_500_000},
		"max_tokens":                  {"max_tokens: 200", 3_000_000},
		"both: max_output_tokens":     {"max_tokens: 200, max_output_tokens: 100", 1_500_000},
		"neither, of another's price": {"base_model: claude-sonnet-4-5", 960_000_000},
	} {
		p := read(t, "model_list: [{model_name: a, litellm_params: {model: claude-sonnet-4-5}, model_info: {"+tt.info+"}}]").Deployments[0].Price
		if p == nil {
			t.Fatalf("%s: no price", name)
		}
		if got, err := p.WorstCost(pricing.Bound{}, now); err != nil || got != tt.want {
			t.Errorf("%s: WorstCost = %d, %v, want %d", name, got, err, tt.want)
		}
	}
}

func TestAPriceThatCannotBeMeantIsAnError(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ params, says string }{
		"per million":              {"input_cost_per_token: 3, output_cost_per_token: 15", "per million"},
		"only half of it":          {"input_cost_per_token: 3e-06", "needed"},
		"a word":                   {"input_cost_per_token: cheap, output_cost_per_token: 1e-06", `"cheap"`},
		"a list":                   {"input_cost_per_token: [1], output_cost_per_token: 1e-06", "1:82: model_list[0].litellm_params.input_cost_per_token: needs text or a number"},
		"two tiers":                {"input_cost_per_token_above_200k_tokens: 1e-06, output_cost_per_token_above_128k_tokens: 1e-06", "one size of prompt"},
		"a tier above no size":     {"input_cost_per_token_above_0k_tokens: 1e-06", "0k is not a size"},
		"an entry the list hasn't": {"", "model nowhere"},
	} {
		text := "model_list: [{model_name: a, litellm_params: {model: mine, " + tt.params + "}"
		if tt.params == "" {
			text += ", model_info: {base_model: nowhere}"
		}
		_, err := Read([]byte(text+"}]"), keys, book(t))
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.says)
		}
	}
}
