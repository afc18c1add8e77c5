package ledger

import (
	"math/rand/v2"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func budget(n money.NanoUSD) Limits { return Limits{MaxBudgetNanoUSD: &n} }

func TestAdmit(t *testing.T) {
	t.Parallel()
	two := int64(2)
	tests := []struct {
		name      string
		key, team Account
		kl, tl    Limits
		hold      money.NanoUSD
		refused   bool
		final     bool
	}{
		{name: "fits exactly", key: Account{Spent: 40, Held: 50}, kl: budget(100), hold: 10},
		{name: "one nano-dollar too much is held by others", key: Account{Spent: 40, Held: 50}, kl: budget(100), hold: 11, refused: true},
		{name: "one nano-dollar more than is left is final", key: Account{Spent: 95}, kl: budget(100), hold: 6, refused: true, final: true},
		{name: "spent to the limit is final", key: Account{Spent: 100}, kl: budget(100), hold: 0, refused: true, final: true},
		{name: "a budget of nothing refuses", kl: budget(0), hold: 0, refused: true, final: true},
		{name: "the team refuses what the key allows", team: Account{Spent: 100}, kl: budget(100), tl: budget(100), hold: 1, refused: true, final: true},
		{name: "a full house refuses for now", key: Account{Open: 2}, kl: Limits{MaxParallelRequests: &two}, refused: true},
		{name: "no limits admit anything", key: Account{Spent: 1 << 60}, hold: 1 << 60},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key, team := tt.key, tt.team
			r := Admit(&Admission{Hold: tt.hold, KeyLimits: tt.kl, TeamLimits: tt.tl}, &key, &team)
			if (r != nil) != tt.refused || r != nil && r.Final != tt.final {
				t.Fatalf("Admit = %+v, want refused %v, final %v", r, tt.refused, tt.final)
			}
			if r != nil && (key != tt.key || team != tt.team) {
				t.Errorf("a refusal changed the accounts: %+v %+v", key, team)
			}
			if r == nil && (key.Held != tt.key.Held+tt.hold || team.Open != tt.team.Open+1) {
				t.Errorf("the hold was not taken from both: %+v %+v", key, team)
			}
		})
	}
}

// TestNoInterleavingGoesOverBudget admits and settles at random: whatever the
// order, spent + held never exceeds the budget when no request costs more than
// its hold, and a refusal never happens while the hold fits.
func TestNoInterleavingGoesOverBudget(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		limit := money.NanoUSD(r.Int64N(1000) + 1)
		var key, team Account
		var open []money.NanoUSD
		for range 500 {
			if len(open) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(open))
				hold := open[i]
				open = append(open[:i], open[i+1:]...)
				cost := money.NanoUSD(r.Int64N(int64(hold) + 1))
				for _, a := range []*Account{&key, &team} {
					a.Held, a.Open, a.Spent = a.Held-hold, a.Open-1, a.Spent+cost
				}
				continue
			}
			hold := money.NanoUSD(r.Int64N(200))
			fits := key.Spent < limit && key.Spent+key.Held+hold <= limit
			refusal := Admit(&Admission{Hold: hold, KeyLimits: budget(limit)}, &key, &team)
			if (refusal == nil) != fits {
				t.Fatalf("seed %d: refusal %v while spent %d + held %d + hold %d, limit %d", seed, refusal, key.Spent, key.Held, hold, limit)
			}
			if refusal == nil {
				open = append(open, hold)
			}
			if key.Spent+key.Held > limit || key.Open != int64(len(open)) {
				t.Fatalf("seed %d: %+v with limit %d and %d open", seed, key, limit, len(open))
			}
		}
	}
}
