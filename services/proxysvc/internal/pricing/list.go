package pricing

import (
	"maps"
	"slices"
	"time"
)

// Listed is one price of a model.
type Listed struct {
	Names    []string
	Provider string
	From     time.Time // zero: from the beginning
	// AbovePromptTokens is the size of prompts above which the rates apply; 0: any.
	AbovePromptTokens int64
	Rates             Rates
}

// List is every price, sorted by the model's first name and by day.
func (b *Book) List() []Listed {
	var out []Listed
	for _, name := range slices.Sorted(maps.Keys(b.models)) {
		m := b.models[name]
		if name != slices.Min(m.Names) {
			continue // listed by another of its names
		}
		for _, r := range m.rates {
			out = append(out, Listed{m.Names, m.Provider, r.from, 0, r.base})
			if r.threshold > 0 {
				out = append(out, Listed{m.Names, m.Provider, r.from, r.threshold, r.above})
			}
		}
	}
	return out
}
