package pricing

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

const million = 1_000_000

// Cost is what the usage costs at the instant `at`. It fails when a count is
// negative or the sum does not fit.
func (m *Model) Cost(u Usage, at time.Time) (money.NanoUSD, error) {
	return m.sum(u, m.ratesOf(u, at), m.scaleOf(u))
}

// ratesOf are those of the instant for a prompt of that size.
func (m *Model) ratesOf(u Usage, at time.Time) Rates {
	r := m.rateAt(at)
	if r.threshold > 0 && u.PromptTokens() > r.threshold {
		return r.above
	}
	return r.base
}

// scale are factors in thousandths; one of 0 is none.
type scale [3]int64

// scaleOf is by what the price of its tokens is multiplied.
func (m *Model) scaleOf(u Usage) scale {
	return scale{m.speed[u.Speed], m.geo[u.InferenceGeo], m.tier[u.ServiceTier]}
}

// of is a sum of tokens times rates, multiplied.
func (s scale) of(sum money.Sum) (money.NanoUSD, error) {
	div := int64(million)
	for _, factor := range s {
		if factor != 0 {
			sum.Scale(factor)
			div *= thousandths
		}
	}
	return sum.Div(div)
}

// sum prices every pool at its rate. Web searches are not multiplied.
func (m *Model) sum(u Usage, r Rates, s scale) (money.NanoUSD, error) {
	var sum money.Sum
	sum.Add(u.InputTokens, r.Input)
	sum.Add(u.OutputTokens, r.Output)
	sum.Add(u.CacheReadTokens, r.CacheRead)
	sum.Add(u.CacheWrite5mTokens, r.CacheWrite5m)
	sum.Add(u.CacheWrite1hTokens, r.CacheWrite1h)
	tokens, err := s.of(sum)
	if err != nil {
		return 0, fmt.Errorf("cost of %s: %w", strings.Join(m.Names, ", "), err)
	}
	// A search has a price in whole nano-dollars, so nothing more is rounded.
	var total money.Sum
	total.Add(int64(tokens), 1)
	total.Add(u.WebSearchRequests, m.webSearch)
	cost, err := total.Div(1)
	if err != nil {
		return 0, fmt.Errorf("cost of %s: %w", strings.Join(m.Names, ", "), err)
	}
	return cost, nil
}

// Bound is the most that a request can use.
type Bound struct {
	PromptTokens int64
	// CacheWrite5m and CacheWrite1h say which caches the request may write to.
	CacheWrite5m, CacheWrite1h bool
	// MaxTokens is the request's max_tokens; 0: the model's own limit.
	MaxTokens int64
	// Answers is how many answers the request asks for (OpenAI's n); 0: one.
	Answers int64
	// Fast says that the request asks for fast mode.
	Fast bool
	// WebSearches is how often the request may search.
	WebSearches int64
	// ServiceTier is the tier that the request asks for; empty: the standard one.
	ServiceTier string
}

// unknownMaxOutput is taken for the limit of a model whose limit is not known.
const unknownMaxOutput = 128_000

// standardTiers are the names of a tier without a surcharge.
var standardTiers = map[string]bool{"": true, "default": true, "standard": true, "standard_only": true}

// WorstCost is the most that a request within the bound can cost at the instant
// `at`: its whole prompt in the dearest pool it may use, the longest answers, in
// the dearest geography, and at the tier that it asks for or the standard one,
// whichever is dearer. A tier that is left to the provider ("auto") or not known
// is the model's dearest.
func (m *Model) WorstCost(b Bound, at time.Time) (money.NanoUSD, error) {
	u := Usage{InputTokens: b.PromptTokens, OutputTokens: times(m.longest(b.MaxTokens), max(b.Answers, 1)), WebSearchRequests: b.WebSearches}
	r := m.rateAt(at)
	rates := Rates{Input: m.dearestPool(r.base, b), Output: r.base.Output}
	if r.threshold > 0 && b.PromptTokens > r.threshold {
		// A count within the bound may stay below the tier, so it is both.
		rates.Input = max(rates.Input, m.dearestPool(r.above, b))
		rates.Output = max(rates.Output, r.above.Output)
	}
	speed, tier := int64(thousandths), int64(thousandths)
	if b.Fast {
		speed = m.speed.dearest()
	}
	if !standardTiers[b.ServiceTier] {
		asked, known := m.tier[b.ServiceTier]
		if !known {
			asked = m.tier.dearest()
		}
		tier = max(tier, asked)
	}
	return m.sum(u, rates, scale{speed, m.geo.dearest(), tier})
}

// MostOutput is the most output tokens that a request within the bound can use.
func (m *Model) MostOutput(b Bound) int64 { return times(m.longest(b.MaxTokens), max(b.Answers, 1)) }

// longest is the most output of one answer for a request's max_tokens.
func (m *Model) longest(maxTokens int64) int64 {
	switch {
	case maxTokens == 0 && m.MaxOutputTokens == 0:
		return unknownMaxOutput
	case maxTokens == 0, m.MaxOutputTokens != 0 && maxTokens > m.MaxOutputTokens:
		return m.MaxOutputTokens
	}
	return maxTokens
}

// dearestPool is the dearest rate that a token of the prompt can have. Only
// Anthropic writes to its caches when it is asked to.
func (m *Model) dearestPool(r Rates, b Bound) int64 {
	dearest := max(r.Input, r.CacheRead)
	if b.CacheWrite5m || b.CacheWrite1h || m.Provider != "anthropic" {
		dearest = max(dearest, r.CacheWrite5m)
	}
	if b.CacheWrite1h {
		dearest = max(dearest, r.CacheWrite1h)
	}
	return dearest
}

// dearest is the largest factor; that of the standard at the least.
func (f factors) dearest() int64 {
	dearest := int64(thousandths)
	for _, factor := range f {
		dearest = max(dearest, factor)
	}
	return dearest
}

// times multiplies two counts; a product that does not fit is the largest number.
func times(a, b int64) int64 {
	hi, lo := bits.Mul64(uint64(max(a, 0)), uint64(max(b, 0)))
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}

// rateAt picks the rate of an instant. Before the first day of all rates the
// oldest one applies.
func (m *Model) rateAt(at time.Time) rate {
	r := m.rates[0]
	for _, next := range m.rates[1:] {
		if !at.Before(next.from) {
			r = next
		}
	}
	return r
}
