package pricing

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Breakdown splits the cost of usage by pool; its sum is Cost. Pools without
// cost are left out. What rounding leaves goes to the largest part.
func (m *Model) Breakdown(u Usage, at time.Time) (map[string]money.NanoUSD, error) {
	total, err := m.Cost(u, at)
	if err != nil {
		return nil, err
	}
	parts := map[string]money.NanoUSD{}
	r := m.rateAt(at)
	rates := r.base
	if r.threshold > 0 && u.PromptTokens() > r.threshold {
		rates = r.above
	}
	rest, largest := total, ""
	for name, pool := range map[string]Usage{
		"input": {InputTokens: u.InputTokens}, "output": {OutputTokens: u.OutputTokens}, "cache_read": {CacheReadTokens: u.CacheReadTokens},
		"cache_write_5m": {CacheWrite5mTokens: u.CacheWrite5mTokens}, "cache_write_1h": {CacheWrite1hTokens: u.CacheWrite1hTokens},
		"web_search": {WebSearchRequests: u.WebSearchRequests},
	} {
		part, err := m.sum(pool, rates, m.speed[u.Speed], m.geo[u.InferenceGeo], m.tier[u.ServiceTier])
		if err != nil || part == 0 {
			continue // no part overflows where the whole does not
		}
		parts[name] = part
		rest -= part
		if largest == "" || part > parts[largest] || part == parts[largest] && name < largest {
			largest = name
		}
	}
	if rest != 0 && largest != "" {
		parts[largest] += rest
	}
	return parts, nil
}
