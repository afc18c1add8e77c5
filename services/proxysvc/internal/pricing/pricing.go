// Package pricing computes what a request costs at Anthropic's list price, and
// the most that it can cost. Prices are data (prices.yaml); the arithmetic is
// exact in 128 bits and rounds once, half up, to nano-dollars.
package pricing

import (
	"fmt"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Usage is what the upstream reported, its pools kept apart, in tokens.
type Usage struct {
	InputTokens        int64 // neither read from nor written to a cache
	OutputTokens       int64
	CacheReadTokens    int64
	CacheWrite5mTokens int64
	CacheWrite1hTokens int64
	WebSearchRequests  int64
	Speed              string // served speed; empty: standard
	InferenceGeo       string // where it ran; empty: not reported
	ServiceTier        string // served tier; empty: not reported
}

// PromptTokens is the size that price tiers go by: input, cache reads and cache
// writes.
func (u Usage) PromptTokens() int64 {
	return u.InputTokens + u.CacheReadTokens + u.CacheWrite5mTokens + u.CacheWrite1hTokens
}

// Rates are nano-dollars per million tokens of each pool.
type Rates struct {
	Input, Output, CacheWrite5m, CacheWrite1h, CacheRead int64
}

// rate is a model's price from a day on.
type rate struct {
	from  time.Time
	base  Rates
	above Rates
	// threshold is the prompt size above which `above` applies; 0: never.
	threshold int64
}

// thousandths is the unit of multipliers: 1100 is × 1.1.
const thousandths = 1000

// Model is one priced model.
type Model struct {
	Names           []string
	MaxOutputTokens int64
	rates           []rate           // oldest first
	speed, geo      map[string]int64 // in thousandths, by what was served
}

// Book is a price list. It never changes once it is loaded.
type Book struct {
	Version   string
	webSearch int64            // nano-dollars per search
	tier      map[string]int64 // in thousandths, for every model
	models    map[string]*Model
}

// Model finds the price of a model by its name, dated or not, with or without a
// provider prefix ("anthropic/") or a context marker ("[1m]").
func (b *Book) Model(name string) (*Model, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(name, "anthropic/"), "[1m]")
	if m, ok := b.models[bare]; ok {
		return m, nil
	}
	return nil, fault.Errorf(fault.NotFound, "model %s has no price", bare)
}

// Cost is what the usage costs at the instant `at`. It fails when the model has
// no price or the sum does not fit.
func (b *Book) Cost(model string, u Usage, at time.Time) (money.NanoUSD, error) {
	m, err := b.Model(model)
	if err != nil {
		return 0, err
	}
	r := m.ratesAt(u.PromptTokens(), at)
	var sum money.Sum
	sum.Add(u.InputTokens, r.Input)
	sum.Add(u.OutputTokens, r.Output)
	sum.Add(u.CacheReadTokens, r.CacheRead)
	sum.Add(u.CacheWrite5mTokens, r.CacheWrite5m)
	sum.Add(u.CacheWrite1hTokens, r.CacheWrite1h)
	div := int64(million)
	for _, factor := range []int64{m.speed[u.Speed], m.geo[u.InferenceGeo], b.tier[u.ServiceTier]} {
		if factor != 0 {
			sum.Scale(factor)
			div *= thousandths
		}
	}
	tokens, err := sum.Div(div)
	if err != nil {
		return 0, fmt.Errorf("cost of %s: %w", model, err)
	}
	// A search has a price in whole nano-dollars, so nothing more is rounded.
	var searches money.Sum
	searches.Add(int64(tokens), 1)
	searches.Add(u.WebSearchRequests, b.webSearch)
	return searches.Div(1)
}

const million = 1_000_000

// Bound is the most that a request can use.
type Bound struct {
	PromptTokens int64
	// CacheWrite5m and CacheWrite1h say which caches the request may write to.
	CacheWrite5m, CacheWrite1h bool
	// MaxTokens is the request's max_tokens; 0: the model's own limit.
	MaxTokens int64
	// Fast says that the request asks for fast mode.
	Fast bool
}

// WorstCost is the most that a request within the bound can cost at the instant
// `at`, wherever it is served.
func (b *Book) WorstCost(model string, bound Bound, at time.Time) (money.NanoUSD, error) {
	m, err := b.Model(model)
	if err != nil {
		return 0, err
	}
	u := Usage{OutputTokens: bound.MaxTokens, InferenceGeo: dearest(m.geo)}
	if u.OutputTokens == 0 || u.OutputTokens > m.MaxOutputTokens {
		u.OutputTokens = m.MaxOutputTokens
	}
	if bound.Fast {
		u.Speed = dearest(m.speed)
	}
	switch {
	case bound.CacheWrite1h:
		u.CacheWrite1hTokens = bound.PromptTokens
	case bound.CacheWrite5m:
		u.CacheWrite5mTokens = bound.PromptTokens
	default:
		u.InputTokens = bound.PromptTokens
	}
	return b.Cost(model, u, at)
}

func dearest(factors map[string]int64) string {
	name := ""
	for n, f := range factors {
		if f > max(factors[name], thousandths) {
			name = n
		}
	}
	return name
}

// ratesAt picks the rates of a prompt of the given size at an instant. Before
// the first day of all rates the oldest ones apply.
func (m *Model) ratesAt(prompt int64, at time.Time) Rates {
	r := m.rates[0]
	for _, next := range m.rates[1:] {
		if !at.Before(next.from) {
			r = next
		}
	}
	if r.threshold > 0 && prompt > r.threshold {
		return r.above
	}
	return r.base
}
