package pricing

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Breakdown is Cost, and how it splits by pool. Pools without cost are left out. What
// rounding leaves goes to the largest part.
func (m *Model) Breakdown(u Usage, at time.Time) (total money.NanoUSD, parts map[string]money.NanoUSD, err error) {
	rates, scale := m.ratesOf(u, at), m.scaleOf(u)
	total, err = m.sum(u, rates, scale)
	if err != nil {
		return 0, nil, err
	}
	parts = map[string]money.NanoUSD{}
	rest, largest, most := total, "", money.NanoUSD(0)
	for _, pool := range [...]struct {
		name         string
		tokens, rate int64
	}{ // by name: of parts that are the same the first is the largest
		{"cache_read", u.CacheReadTokens, rates.CacheRead},
		{"cache_write_1h", u.CacheWrite1hTokens, rates.CacheWrite1h},
		{"cache_write_5m", u.CacheWrite5mTokens, rates.CacheWrite5m},
		{"input", u.InputTokens, rates.Input},
		{"output", u.OutputTokens, rates.Output},
		{"web_search", u.WebSearchRequests, m.webSearch},
	} {
		if pool.tokens == 0 {
			continue
		}
		var sum money.Sum
		sum.Add(pool.tokens, pool.rate)
		part, err := scale.of(sum)
		if pool.name == "web_search" {
			part, err = sum.Div(1)
		}
		if err != nil || part == 0 {
			continue // no part overflows where the whole does not
		}
		parts[pool.name] = part
		rest -= part
		if part > most {
			largest, most = pool.name, part
		}
	}
	if rest != 0 && largest != "" {
		parts[largest] += rest
	}
	return total, parts, nil
}
