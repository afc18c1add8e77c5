package pricing

import (
	"fmt"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// PerToken holds rates in USD per token as text, the way LiteLLM's
// configuration has them ("3e-06" or "0.000003"). Empty: not given.
type PerToken struct {
	Input, Output, CacheWrite5m, CacheWrite1h, CacheRead string
}

// Overrides are an operator's own prices of a model.
type Overrides struct {
	PerToken
	// AbovePromptTokens is the size of prompt above which the rates of Above
	// apply, output included; 0: there are none.
	AbovePromptTokens int64
	Above             PerToken
	MaxOutputTokens   int64 // 0: not given
}

// Custom makes a model with prices of its own. What is not given comes from the
// list's entry of base, a tier by prompt size and multipliers included. Where the
// list has none, input and output must be given; a cache read then costs as
// input, a 5-minute write 1.25 × and a 1-hour write 2 × that.
func (b *Book) Custom(base string, o Overrides) (*Model, error) {
	m := &Model{Names: []string{Bare(base)}, rates: []rate{{}}, webSearch: b.webSearch}
	known, err := b.Model(base)
	listed := err == nil
	if listed {
		*m = *known
		m.rates = append([]rate(nil), known.rates...)
	}
	if !listed && (o.Input == "" || o.Output == "") {
		return nil, fmt.Errorf("the price list has no model %s, so the input's and the output's price per token are needed", Bare(base))
	}
	if o.MaxOutputTokens != 0 {
		m.MaxOutputTokens = o.MaxOutputTokens
	}
	for i := range m.rates {
		if m.rates[i], err = o.apply(m.rates[i], listed); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// apply replaces what is given in a rate; listed: it is the list's.
func (o Overrides) apply(r rate, listed bool) (rate, error) {
	was := r.threshold
	base, err := o.over(r.base, listed)
	if err != nil || o.AbovePromptTokens == 0 {
		r.base = base
		return r, err
	}
	if o.AbovePromptTokens < 0 {
		return r, fmt.Errorf("a tier above %d tokens makes no sense", o.AbovePromptTokens)
	}
	r.base, r.threshold = base, o.AbovePromptTokens
	if listed && was == r.threshold {
		r.above, err = o.Above.over(r.above, true)
		return r, err
	}
	// The list knows nothing of this tier: what it does not name costs as below
	// it, and caches follow the tier's own input where that is given.
	r.above, err = o.Above.over(base, o.Above.Input == "")
	return r, err
}

// over parses the rates that are given and takes the others from r; those of
// caches, where they are not known, from the input.
func (p PerToken) over(r Rates, cachesKnown bool) (Rates, error) {
	for _, field := range []struct {
		name, text string
		to         *int64
	}{{"input", p.Input, &r.Input}, {"output", p.Output, &r.Output}} {
		if err := parseRate(field.name, field.text, field.to); err != nil {
			return r, err
		}
	}
	if !cachesKnown {
		r.CacheRead, r.CacheWrite5m, r.CacheWrite1h = r.Input, (r.Input*5+3)/4, r.Input*2
	}
	for _, field := range []struct {
		name, text string
		to         *int64
	}{
		{"cache read", p.CacheRead, &r.CacheRead},
		{"5-minute cache write", p.CacheWrite5m, &r.CacheWrite5m},
		{"1-hour cache write", p.CacheWrite1h, &r.CacheWrite1h},
	} {
		if err := parseRate(field.name, field.text, field.to); err != nil {
			return r, err
		}
	}
	return r, nil
}

// maxRate is $0.01 per token: no model costs nearly as much. A price above it was
// meant per million tokens.
const maxRate = 10_000_000_000_000

// parseRate reads USD per token as nano-dollars per million tokens, which are
// 1e-15 USD per token. Nothing given leaves the rate as it is.
func parseRate(name, text string, to *int64) error {
	if text == "" {
		return nil
	}
	n, err := money.ParseDecimal(text, 15)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %q is not a price in USD per token with at most 15 decimals", name, text)
	case n < 0:
		return fmt.Errorf("%s: %q is negative", name, text)
	case n > maxRate:
		return fmt.Errorf("%s: %q is more than 0.01 USD per token; prices are per token, not per million", name, text)
	}
	*to = n
	return nil
}
