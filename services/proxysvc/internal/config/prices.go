package config

import (
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// rateFields are LiteLLM's names of the rates.
var rateFields = map[string]func(*pricing.PerToken) *string{
	"input_cost_per_token":                      func(p *pricing.PerToken) *string { return &p.Input },
	"output_cost_per_token":                     func(p *pricing.PerToken) *string { return &p.Output },
	"cache_creation_input_token_cost":           func(p *pricing.PerToken) *string { return &p.CacheWrite5m },
	"cache_creation_input_token_cost_above_1hr": func(p *pricing.PerToken) *string { return &p.CacheWrite1h },
	"cache_read_input_token_cost":               func(p *pricing.PerToken) *string { return &p.CacheRead },
}

// aboveSuffix ends the name of a rate for prompts above a number of tokens.
var aboveSuffix = regexp.MustCompile(`^(.+)_above_(\d{1,6})k_tokens$`)

// price makes the price of an entry that has one of its own or names the entry of
// the price list; nil otherwise. What stands in model_info wins.
func (r *reader) price(params, info *section, d proxy.Deployment) *pricing.Model {
	var o pricing.Overrides
	faults := len(r.faults)
	at := r.rates(params, &o)
	if n := r.rates(info, &o); n != nil {
		at = n
	}
	base := d.Model
	if name := info.text("base_model"); name != "" {
		base, at = name, orNode(at, info.take("base_model"))
	}
	if n := firstOf(info, "max_output_tokens", "max_tokens"); n != "" {
		o.MaxOutputTokens = info.whole(n, 0, 1, maxCount)
		if _, err := r.book.Model(base); err == nil {
			at = orNode(at, info.take(n))
		} else if at == nil {
			r.warn(info.take(n), join(info.path, n), "has no effect without prices: the price list has no model %s", base)
		}
	}
	if at == nil {
		r.priced(params, d)
		return nil
	}
	if base == "" || len(r.faults) > faults {
		return nil // reported
	}
	m, err := r.book.Custom(base, o)
	if err != nil {
		r.fault(at, params.path, "prices: %v", err)
		return nil
	}
	if cost, err := m.Cost(pricing.Usage{InputTokens: 1_000_000, OutputTokens: 1_000_000}, time.Time{}); err == nil && cost == 0 {
		r.warn(at, params.path, "input and output cost nothing: %s is free, whatever the budget", d.ModelName)
	}
	return m
}

// priced warns of a model that every request will be refused for.
func (r *reader) priced(params *section, d proxy.Deployment) {
	n := params.take("model")
	if n == nil || d.Model == "" || d.Model[len(d.Model)-1] == '*' {
		return
	}
	if _, err := r.book.Model(d.Model); err != nil {
		r.warn(n, join(params.path, "model"), "%v, so requests are refused; give input_cost_per_token and output_cost_per_token, or model_info.base_model", err)
	}
}

// rates reads the rates of a section into o and returns where one stands.
func (r *reader) rates(s *section, o *pricing.Overrides) *yaml.Node {
	var at *yaml.Node
	for _, key := range s.keys {
		name := target(key).Value
		to := &o.PerToken
		field, ok := rateFields[name]
		if m := aboveSuffix.FindStringSubmatch(name); m != nil && !ok {
			if field, ok = rateFields[m[1]]; ok {
				to = r.above(key, join(s.path, name), m[2], o)
			}
		}
		if !ok {
			continue
		}
		n := s.take(name)
		if n == nil {
			continue
		}
		if v, ok := r.scalar(n, join(s.path, name)); ok {
			*field(to), at = v, orNode(at, n)
		}
	}
	return at
}

// above is where the rates above a size go; an entry can have one such size.
func (r *reader) above(key *yaml.Node, path, thousands string, o *pricing.Overrides) *pricing.PerToken {
	k, err := strconv.ParseInt(thousands, 10, 64)
	switch {
	case err != nil || k == 0:
		r.fault(key, path, "%sk is not a size of prompt", thousands)
	case o.AbovePromptTokens != 0 && o.AbovePromptTokens != k*1000:
		r.fault(key, path, "one size of prompt can have prices of its own; there is one above %d tokens", o.AbovePromptTokens)
	default:
		o.AbovePromptTokens = k * 1000
	}
	return &o.Above
}

// firstOf is the first of the settings that is there; the others are taken too.
func firstOf(s *section, names ...string) string {
	first := ""
	for _, name := range names {
		if s.take(name) != nil && first == "" {
			first = name
		}
	}
	return first
}

func orNode(a, b *yaml.Node) *yaml.Node {
	if a != nil {
		return a
	}
	return b
}
