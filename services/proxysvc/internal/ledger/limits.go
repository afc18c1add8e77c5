package ledger

import (
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Budget is the most that an account may spend in a window.
type Budget struct {
	Limit money.NanoUSD
	// Window is when it starts again, in LiteLLM's grammar ("24h", "30d"); empty:
	// never.
	Window string
	// Increase is added to the limit until IncreaseUntil.
	Increase      money.NanoUSD
	IncreaseUntil time.Time
}

// at is the limit at an instant.
func (b Budget) at(now time.Time) money.NanoUSD {
	if now.Before(b.IncreaseUntil) {
		return b.Limit + b.Increase
	}
	return b.Limit
}

// Limits bound an account; nil fields are no limits. All hold at once.
type Limits struct {
	Budgets []Budget
	// Soft admits a request while less than each budget is spent, whatever it may
	// cost itself: LiteLLM's rule. Otherwise its worst case must fit.
	Soft                bool
	MaxParallelRequests *int64
	RPM, TPM            *int64 // requests and tokens a minute
	// Warn is what may be spent, in the window of the first budget, before somebody
	// is told; nothing is refused for it.
	Warn *money.NanoUSD
}

// Any says whether there is a limit at all.
func (l Limits) Any() bool {
	return len(l.Budgets) > 0 || l.MaxParallelRequests != nil || l.RPM != nil || l.TPM != nil || l.Warn != nil
}

// Windows are the windows of the budgets, each once, in order.
func (l Limits) Windows() []string {
	windows := []string{}
	for _, b := range l.Budgets {
		if b.Window != "" {
			windows = append(windows, b.Window)
		}
	}
	slices.Sort(windows)
	return slices.Compact(windows)
}

// Warning says that an account has spent its soft budget; one of a model, that it
// has no price.
type Warning struct {
	Account AccountID
	Spent   money.NanoUSD
	Soft    money.NanoUSD
	// Window is when what is spent starts again; zero: never. There is one warning
	// a window.
	Window time.Time
}

// Unpriced says that a model has no price.
func (w Warning) Unpriced() bool { return w.Account.Kind == KindModel }

// warning is due when the account has spent the claim's soft budget; nil: it is
// not.
func (c Claim) warning(account *Account) *Warning {
	if c.Limits.Warn == nil {
		return nil
	}
	spent, resets := account.Spent, time.Time{}
	if len(c.Limits.Budgets) > 0 {
		spent, resets = account.spent(c.Limits.Budgets[0])
	}
	if spent < *c.Limits.Warn {
		return nil
	}
	return &Warning{c.Account, spent, *c.Limits.Warn, resets}
}

// Claim is what a request asks of one account that has limits.
type Claim struct {
	Account AccountID
	Who     string // for messages: "key", "team", "key's model claude-…"
	Limits  Limits
}

// Account is the state of an account with limits.
type Account struct {
	Spent, Held money.NanoUSD
	Open        int64 // requests in flight
	HeldTokens  int64 // that those may use
	// Minute is the one that the next two are of.
	Minute                       time.Time
	MinuteRequests, MinuteTokens int64
	Windows                      []Window
	// Change is what a batch has changed in it.
	Change Delta
}

// Window is what an account has spent in one window, whose name is as in Budget.
type Window struct {
	Name     string
	Spent    money.NanoUSD
	ResetsAt time.Time
}

// turn begins a new minute when the account's is over.
func (a *Account) turn(now time.Time) {
	if m := now.Truncate(time.Minute); m.After(a.Minute) {
		a.Minute, a.MinuteRequests, a.MinuteTokens = m, 0, 0
	}
}

// spent is what counts against a budget, and when that starts again; the zero
// time: never.
func (a *Account) spent(b Budget) (money.NanoUSD, time.Time) {
	if b.Window == "" {
		return a.Spent, time.Time{}
	}
	for _, w := range a.Windows {
		if w.Name == b.Window {
			return w.Spent, w.ResetsAt
		}
	}
	return 0, time.Time{}
}

// Delta is what a batch changes in an account.
type Delta struct {
	Spent, Held                        money.NanoUSD
	Open, HeldTokens, Requests, Tokens int64
}

func (d Delta) plus(e Delta) Delta {
	return Delta{
		Spent: d.Spent + e.Spent, Held: d.Held + e.Held, Open: d.Open + e.Open,
		HeldTokens: d.HeldTokens + e.HeldTokens, Requests: d.Requests + e.Requests, Tokens: d.Tokens + e.Tokens,
	}
}

// Apply changes the account as the store will. The instant is the transaction's.
func (a *Account) Apply(d Delta, now time.Time) {
	a.turn(now)
	a.Spent += d.Spent
	a.Held += d.Held
	a.Open += d.Open
	a.HeldTokens += d.HeldTokens
	a.MinuteRequests += d.Requests
	a.MinuteTokens += d.Tokens
	for i := range a.Windows {
		a.Windows[i].Spent += d.Spent
	}
	a.Change = a.Change.plus(d)
}
