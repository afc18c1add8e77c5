// Package pricing computes what a request costs at its provider's list price or
// at the operator's own, and the most that it can cost. Prices are data
// (prices.yaml, openai.yaml); the arithmetic is exact in 128 bits and rounds
// once, half up, to nano-dollars.
package pricing

import (
	"maps"
	"math"
	"slices"
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
	ReasoningTokens    int64  // for information: a part of OutputTokens, priced there
	Speed              string // served speed; empty: standard
	InferenceGeo       string // where it ran; empty: not reported
	ServiceTier        string // served tier; empty: not reported
}

// PromptTokens is the size that price tiers go by: input, cache reads and cache
// writes. A sum that does not fit is the largest number.
func (u Usage) PromptTokens() int64 {
	sum := int64(0)
	for _, n := range []int64{u.InputTokens, u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens} {
		if n > 0 && sum > math.MaxInt64-n {
			return math.MaxInt64
		}
		sum += n
	}
	return sum
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

// factors are multipliers in thousandths, by what was served.
type factors map[string]int64

// thousandths is the unit of multipliers: 1100 is × 1.1.
const thousandths = 1000

// Model is one priced model. It never changes.
type Model struct {
	Names    []string
	Provider string // as config.yaml names it: anthropic, openai; empty: not in the list
	// MaxOutputTokens bounds what it can answer; 0: not known.
	MaxOutputTokens  int64
	rates            []rate // oldest first
	webSearch        int64  // nano-dollars per search
	speed, geo, tier factors
}

// Book is a price list. It never changes once it is loaded.
type Book struct {
	Version   string
	webSearch int64 // nano-dollars per search, of models that are not in the list
	models    map[string]*Model
}

// Model finds the price of a model by its name, dated or not, with or without a
// provider prefix ("anthropic/") or a context marker ("[1m]").
func (b *Book) Model(name string) (*Model, error) {
	bare := strings.TrimSuffix(Bare(name), "[1m]")
	if m, ok := b.models[bare]; ok {
		return m, nil
	}
	return nil, fault.Errorf(fault.NotFound, "model %s has no price", bare)
}

// Dearest is the model with the dearest million of tokens in and out at an instant:
// what stands in for a model that has no price, of which it knows nothing else.
func (b *Book) Dearest(at time.Time) *Model {
	var found *Model
	var most int64
	for _, name := range slices.Sorted(maps.Keys(b.models)) {
		m := b.models[name]
		if r := m.rateAt(at); found == nil || r.dearest() > most {
			found, most = m, r.dearest()
		}
	}
	if found == nil {
		return nil
	}
	stand := *found
	stand.Names, stand.Provider, stand.MaxOutputTokens = nil, "", 0
	return &stand
}

// dearest is the most that a million tokens in and out can cost, before factors.
func (r rate) dearest() int64 {
	return max(r.base.Input+r.base.Output, r.above.Input+r.above.Output)
}

// Bare is a model's name without its provider.
func Bare(name string) string {
	for _, prefix := range []string{"anthropic/", "openai/"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest
		}
	}
	return name
}

// Names lists the models of a provider, sorted: what a wildcard stands for.
func (b *Book) Names(provider string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(b.models)) {
		if b.models[name].Provider == provider {
			names = append(names, name)
		}
	}
	return names
}

// Cost is what the usage of a model costs at the instant `at`. It fails when the
// model has no price or the sum does not fit.
func (b *Book) Cost(model string, u Usage, at time.Time) (money.NanoUSD, error) {
	m, err := b.Model(model)
	if err != nil {
		return 0, err
	}
	return m.Cost(u, at)
}

// WorstCost is the most that a request to a model within the bound can cost at
// the instant `at`, wherever it is served.
func (b *Book) WorstCost(model string, bound Bound, at time.Time) (money.NanoUSD, error) {
	m, err := b.Model(model)
	if err != nil {
		return 0, err
	}
	return m.WorstCost(bound, at)
}
