package pricing

import (
	"testing"
	"time"
)

// TestNoModelIsDearerThanTheDearest compares all of the list at several instants.
func TestNoModelIsDearerThanTheDearest(t *testing.T) {
	t.Parallel()
	book, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	u := Usage{InputTokens: 1_000, OutputTokens: 1_000}
	for _, at := range []time.Time{time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), time.Now()} {
		stand, err := book.Dearest(at).Cost(u, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, provider := range []string{"anthropic", "openai"} {
			for _, name := range book.Names(provider) {
				m, err := book.Model(name)
				if err != nil {
					t.Fatal(err)
				}
				if cost, err := m.Cost(u, at); err != nil || cost > stand {
					t.Errorf("%s costs %s, the dearest %s, %v", name, cost, stand, err)
				}
			}
		}
	}
}
