package ledger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// TestWhatIsSliced asks twice for a request of 10 by a key with limits, and looks what slice
// it has then: an eighth of what is left at most, and of no window that ends soon.
func TestWhatIsSliced(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) // Postgres's clock is another one
	n, warn := int64(100), money.NanoUSD(5)
	limit := func(l money.NanoUSD) Limits { return Limits{Budgets: []Budget{{Limit: l}}} }
	window := func(after time.Duration) []Window {
		return []Window{{Name: "1h", ResetsAt: now.Add(after)}}
	}
	hourly := Limits{Budgets: []Budget{{Limit: 10_000, Window: "1h"}}}
	increased := func(after time.Duration) Limits {
		return Limits{Budgets: []Budget{{Limit: 10, Increase: 10_000, IncreaseUntil: now.Add(after)}}}
	}
	for name, test := range map[string]struct {
		limits  Limits
		account Account
		held    money.NanoUSD // of a slice, its two requests included
		last    time.Duration
	}{
		"much is left":                  {limits: limit(10_000), held: 170, last: time.Minute},
		"little is left":                {limits: limit(10_000), account: Account{Spent: 9_000}, held: 132, last: time.Minute},
		"less is left":                  {limits: limit(10_000), account: Account{Spent: 9_600, Held: 300}},
		"the least of two budgets":      {limits: Limits{Budgets: []Budget{{Limit: 10_000}, {Limit: 1_000}}}, held: 132, last: time.Minute},
		"a warning":                     {limits: Limits{Budgets: limit(10_000).Budgets, Warn: &warn}, held: 170, last: time.Minute},
		"a soft budget":                 {limits: Limits{Budgets: limit(10_000).Budgets, Soft: true}},
		"requests at once, too":         {limits: Limits{Budgets: limit(10_000).Budgets, MaxParallelRequests: &n}},
		"requests a minute, too":        {limits: Limits{Budgets: limit(10_000).Budgets, RPM: &n}},
		"tokens a minute, too":          {limits: Limits{Budgets: limit(10_000).Budgets, TPM: &n}},
		"no budget":                     {limits: Limits{Warn: &warn}},
		"a window of an hour":           {limits: hourly, account: Account{Windows: window(time.Hour)}, held: 170, last: time.Minute},
		"one that ends within a minute": {limits: hourly, account: Account{Windows: window(40 * time.Second)}, held: 170, last: 30 * time.Second},
		"one that ends soon":            {limits: hourly, account: Account{Windows: window(10 * time.Second)}},
		"more until soon":               {limits: increased(30 * time.Second), held: 170, last: 20 * time.Second},
		"more until now":                {limits: increased(10 * time.Second)},
		"a model's":                     {limits: limit(10_000), account: Account{Open: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSlicer(time.Minute)
			s.begin(7)
			id := AccountID{Kind: KindKey, ID: "k"}
			if test.account.Open < 0 {
				test.account.Open, id = 0, AccountID{Kind: KindKeyModel, ID: "k", Model: "m"}
			}
			account, before := test.account, time.Now()
			var b *Batch
			for range 2 {
				account.Change = Delta{}
				b = &Batch{LogID: 7, Admissions: []*Admission{{
					Request: Request{KeyID: "k", ModelGroup: "m"}, Hold: 10, Tokens: 1, Claims: []Claim{{Account: id, Limits: test.limits}},
				}}}
				s.prepare(b)
				admitted := s.decide(b, map[AccountID]*Account{id: &account}, now, func(*Admission, *Refusal, Standing) {})
				if len(admitted) != 1 {
					t.Fatal("not admitted")
				}
				s.written(b)
			}
			var want []BudgetSlice
			if test.held > 0 {
				want = []BudgetSlice{{Account: id, Held: test.held, Open: 1, Tokens: 1}}
			}
			if diff := cmp.Diff(want, b.Slices); diff != "" {
				t.Fatalf("slices (-want +got):\n%s", diff)
			}
			if want == nil {
				return
			}
			if until := s.of[id].until; until.Before(before.Add(test.last)) || until.After(time.Now().Add(test.last)) {
				t.Errorf("it lasts until %s, want %s from %s", until, test.last, before)
			}
			if got := account.Change.Held; got != test.held {
				t.Errorf("the account holds %d for it, want %d", got, test.held)
			}
		})
	}
}
