package ledger

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

var (
	noon = time.Date(2026, 11, 24, 12, 0, 30, 0, time.UTC)
	key  = AccountID{Kind: KindKey, ID: "k"}
	team = AccountID{Kind: KindTeam, ID: "t"}
)

func budget(n money.NanoUSD) Limits { return Limits{Budgets: []Budget{{Limit: n}}} }

func number(n int64) *int64 { return &n }

// admission asks for a hold for key k of team t.
func admission(hold money.NanoUSD, tokens int64, ofKey, ofTeam Limits) *Admission {
	a := &Admission{Request: Request{KeyID: "k", TeamID: "t", ModelGroup: "anthropic/m"}, Hold: hold, Tokens: tokens}
	for _, c := range []Claim{{key, "key", ofKey}, {team, "team", ofTeam}} {
		if c.Limits.Any() {
			a.Claims = append(a.Claims, c)
		}
	}
	return a
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	minute := noon.Truncate(time.Minute)
	day := func(spent money.NanoUSD) []Window {
		return []Window{{"24h", spent, noon.Add(12 * time.Hour)}, {Name: "1h", ResetsAt: noon.Add(time.Hour)}}
	}
	two := Limits{Budgets: []Budget{{Limit: 100, Window: "24h"}, {Limit: 50, Window: "1h"}}}
	tests := []struct {
		name      string
		key, team Account
		kl, tl    Limits
		hold      money.NanoUSD
		tokens    int64
		refused   string // a part of the message; empty: it is admitted
		final     bool
		after     time.Duration
	}{
		{name: "fits exactly", key: Account{Spent: 40, Held: 50}, kl: budget(100), hold: 10},
		{name: "one nano-dollar too much is held by others", key: Account{Spent: 40, Held: 50}, kl: budget(100), hold: 11, refused: "held by its requests"},
		{name: "one nano-dollar more than is left is final", key: Account{Spent: 95}, kl: budget(100), hold: 6, refused: "too small for this request", final: true},
		{name: "spent to the limit is final", key: Account{Spent: 100}, kl: budget(100), refused: "used up", final: true},
		{name: "a budget of nothing refuses", kl: budget(0), refused: "used up", final: true},
		{name: "the team refuses what the key allows", team: Account{Spent: 100}, kl: budget(100), tl: budget(100), hold: 1, refused: "The team's budget", final: true},
		{name: "no limits admit anything", key: Account{Spent: 1 << 60}, hold: 1 << 60},
		{name: "soft: what is not spent yet admits any cost", key: Account{Spent: 99, Held: 500}, kl: Limits{Budgets: budget(100).Budgets, Soft: true}, hold: 1000},
		{name: "soft: spent is spent", key: Account{Spent: 100}, kl: Limits{Budgets: budget(100).Budgets, Soft: true}, refused: "used up", final: true},
		{name: "the total does not count in a window", key: Account{Spent: 1 << 50, Windows: day(60)}, kl: two, hold: 40},
		{name: "the day is spent", key: Account{Windows: day(100)}, kl: two, hold: 1, refused: "window of 24h, which ends at 2026-11-25T00:00:30Z", final: true},
		{name: "the hour is too small although the day is not", key: Account{Windows: day(0)}, kl: two, hold: 51, refused: "window of 1h", final: true},
		{name: "a hold counts in every window", key: Account{Held: 45, Windows: day(0)}, kl: two, hold: 6, refused: "window of 1h"},
		{name: "an increase counts while it lasts", key: Account{Spent: 120}, kl: Limits{Budgets: []Budget{{Limit: 100, Increase: 50, IncreaseUntil: noon.Add(time.Second)}}}, hold: 30},
		{name: "an increase ends", key: Account{Spent: 120}, kl: Limits{Budgets: []Budget{{Limit: 100, Increase: 50, IncreaseUntil: noon}}}, refused: "used up", final: true},
		{name: "a full house refuses for now", key: Account{Open: 2}, kl: Limits{MaxParallelRequests: number(2)}, refused: "2 requests in flight"},
		{name: "the last request of the minute", key: Account{Minute: minute, MinuteRequests: 4}, kl: Limits{RPM: number(5)}},
		{name: "one request too much", key: Account{Minute: minute, MinuteRequests: 5}, kl: Limits{RPM: number(5)}, refused: "starts again at 12:01:00 UTC", after: 30 * time.Second},
		{name: "the minute is over", key: Account{Minute: minute.Add(-time.Minute), MinuteRequests: 5}, kl: Limits{RPM: number(5)}},
		{name: "a minute that another replica has begun counts", key: Account{Minute: minute.Add(time.Minute), MinuteRequests: 5}, kl: Limits{RPM: number(5)}, refused: "5 requests a minute", after: 90 * time.Second},
		{name: "tokens fit exactly", key: Account{Minute: minute, MinuteTokens: 40, HeldTokens: 50}, kl: Limits{TPM: number(100)}, tokens: 10},
		{name: "tokens are held by others", key: Account{Minute: minute, MinuteTokens: 40, HeldTokens: 50}, kl: Limits{TPM: number(100)}, tokens: 11, refused: "50 are held", after: 30 * time.Second},
		{name: "tokens are used up", key: Account{Minute: minute, MinuteTokens: 100}, kl: Limits{TPM: number(100)}, refused: "100 were used", after: 30 * time.Second},
		{name: "a request larger than the limit runs alone", kl: Limits{TPM: number(100)}, tokens: 5000},
		{name: "a request larger than the limit does not run beside others", key: Account{HeldTokens: 1}, kl: Limits{TPM: number(100)}, tokens: 5000, refused: "could use 5000", after: 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			accounts := map[AccountID]*Account{key: &tt.key, team: &tt.team}
			before := map[AccountID]Account{key: tt.key, team: tt.team}
			a := admission(tt.hold, tt.tokens, tt.kl, tt.tl)
			r := Admit(a, accounts, noon)
			if (r != nil) != (tt.refused != "") || r != nil && (!strings.Contains(r.Message, tt.refused) || r.Final != tt.final || r.RetryAfter != tt.after) {
				t.Fatalf("Admit = %+v, want %q, final %v, after %s", r, tt.refused, tt.final, tt.after)
			}
			for id, account := range accounts {
				old := before[id]
				old.turn(noon)
				account.turn(noon)
				if r == nil {
					old.Apply(a.delta(), noon)
				}
				if diff := cmp.Diff(old, *account); diff != "" {
					t.Errorf("%v (-want +got):\n%s", id, diff)
				}
			}
		})
	}
}

func TestSingleModelsHaveAccountsOfTheirOwn(t *testing.T) {
	t.Parallel()
	a := admission(10, 0, Limits{}, Limits{})
	model := AccountID{KindKeyModel, "k", "m"}
	a.Claims = []Claim{{model, "key's m", budget(15)}}
	accounts := map[AccountID]*Account{model: {}}
	if r := Admit(a, accounts, noon); r != nil {
		t.Fatal(r)
	}
	if r := Admit(a, accounts, noon); r == nil || r.Final || accounts[model].Held != 10 {
		t.Errorf("the second: %v, %+v", r, accounts[model])
	}
}

// TestNoInterleavingGoesOverBudget admits, settles and lets time pass at random:
// whatever the order, no window's spent + held exceeds its budget when no request
// costs more than its hold, requests and tokens a minute stay within their
// limits, a refusal never happens while everything fits, and what is held is
// what is open.
func TestNoInterleavingGoesOverBudget(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		total, hourly := money.NanoUSD(r.Int64N(3000)+1), money.NanoUSD(r.Int64N(600)+1)
		limits := Limits{
			Budgets: []Budget{{Limit: total}, {Limit: hourly, Window: "1h"}},
			RPM:     number(r.Int64N(8) + 1), TPM: number(r.Int64N(500) + 1), MaxParallelRequests: number(r.Int64N(6) + 1),
		}
		now := noon
		account := &Account{Windows: []Window{{Name: "1h", ResetsAt: now.Add(time.Hour)}}}
		var open []*Admission
		var used, made int64
		for range 600 {
			if w := &account.Windows[0]; !now.Before(w.ResetsAt) { // the store resets what is over
				w.Spent, w.ResetsAt = 0, now.Add(time.Hour)
			}
			before := now.Truncate(time.Minute)
			now = now.Add(time.Duration(r.Int64N(int64(20 * time.Second))))
			if now.Truncate(time.Minute).After(before) {
				used, made = 0, 0
			}
			if len(open) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(open))
				a := open[i]
				open = append(open[:i], open[i+1:]...)
				cost, tokens := money.NanoUSD(r.Int64N(int64(a.Hold)+1)), r.Int64N(a.Tokens+1)
				account.Apply(Delta{Spent: cost, Held: -a.Hold, Open: -1, HeldTokens: -a.Tokens, Tokens: tokens}, now)
				used += tokens
				continue
			}
			a := admission(money.NanoUSD(r.Int64N(200)), r.Int64N(200), limits, Limits{})
			w := account.Windows[0]
			fits := account.Spent+account.Held+a.Hold <= total && account.Spent < total && w.Spent+account.Held+a.Hold <= hourly && w.Spent < hourly &&
				made < *limits.RPM && used < *limits.TPM && used+account.HeldTokens+min(a.Tokens, *limits.TPM) <= *limits.TPM && account.Open < *limits.MaxParallelRequests
			refusal := Admit(a, map[AccountID]*Account{key: account}, now)
			if (refusal == nil) != fits {
				t.Fatalf("seed %d: refusal %v, fits %v: %+v", seed, refusal, fits, account)
			}
			if refusal == nil {
				made++
				open = append(open, a)
			}
			if account.Spent+account.Held > total || account.Open != int64(len(open)) || account.MinuteRequests > *limits.RPM {
				t.Fatalf("seed %d: %+v with %d open", seed, account, len(open))
			}
		}
	}
}
