package billing

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

var policy = Policy{GracePeriod: time.Hour, Overdraft: 100}

func TestGateNext(t *testing.T) {
	t.Parallel()
	later := noon.Add(time.Hour)
	soon := noon.Add(time.Minute)
	gate := func(s GateState, b Basis) Gate {
		g := Gate{State: s, Basis: b, Generation: 7}
		switch s {
		case Grace:
			g.GraceUntil = &soon
		case Exhausted:
			g.Reason = reasonExhausted
		case Suspended:
			g.Reason = "chargeback"
		case Unconfigured, Trial, Active:
		}
		return g
	}
	tests := []struct {
		name   string
		policy Policy
		gate   Gate
		cause  Cause
		shadow money.NanoUSD
		now    time.Time
		want   GateState
		told   bool // keysvc has to hear of it
	}{
		{"nobody has configured the team: it is let through", policy, gate(Unconfigured, NoBasis), CauseSpend, -5, noon, Unconfigured, false},
		{"a trial begins", policy, gate(Unconfigured, TrialBasis), CauseTrial, 5, noon, Trial, false},
		{"a trial goes on", policy, gate(Trial, TrialBasis), CauseSpend, 1, noon, Trial, false},
		{"a trial that is used up has no grace", policy, gate(Trial, TrialBasis), CauseSpend, 0, noon, Exhausted, true},
		{"a trial becomes a plan", policy, gate(Trial, PlanBasis), CauseReport, 50, noon, Active, false},
		{"a plan is reported for an exhausted trial", policy, gate(Exhausted, PlanBasis), CauseReport, 50, noon, Active, true},
		{"a plan without credits does not open an exhausted trial", policy, gate(Exhausted, PlanBasis), CauseReport, 0, noon, Exhausted, false},
		{"a plan is reported for a team nobody had configured", policy, gate(Unconfigured, PlanBasis), CauseReport, 50, noon, Active, false},
		{"active spends", policy, gate(Active, PlanBasis), CauseSpend, 1, noon, Active, false},
		{"active runs out", policy, gate(Active, PlanBasis), CauseSpend, 0, noon, Grace, false},
		{"active jumps over the overdraft", policy, gate(Active, PlanBasis), CauseSpend, -100, noon, Exhausted, true},
		{"active runs out and there is no grace period", Policy{Overdraft: 100}, gate(Active, PlanBasis), CauseSpend, 0, noon, Exhausted, true},
		{"active runs out and there is no overdraft", Policy{GracePeriod: time.Hour}, gate(Active, PlanBasis), CauseSpend, 0, noon, Exhausted, true},
		{"grace goes on", policy, gate(Grace, PlanBasis), CauseSpend, -99, noon, Grace, false},
		{"grace reaches the overdraft", policy, gate(Grace, PlanBasis), CauseSpend, -100, noon, Exhausted, true},
		{"grace runs out", policy, gate(Grace, PlanBasis), CauseElapsed, -5, soon, Exhausted, true},
		{"grace ends with a top-up", policy, gate(Grace, PlanBasis), CauseReport, 1, noon, Active, false},
		{"grace ends with a top-up that comes late", policy, gate(Grace, PlanBasis), CauseReport, 1, later, Active, false},
		{"exhausted stays", policy, gate(Exhausted, PlanBasis), CauseSpend, -50, noon, Exhausted, false},
		{"exhausted does not get a second grace", policy, gate(Exhausted, PlanBasis), CauseReport, -1, noon, Exhausted, false},
		{"exhausted is topped up", policy, gate(Exhausted, PlanBasis), CauseReport, 1, noon, Active, true},
		{"an exhausted trial is corrected", policy, gate(Exhausted, TrialBasis), CauseSpend, 1, noon, Trial, true},
		{"anyone can be suspended", policy, gate(Active, PlanBasis), CauseSuspend, 50, noon, Suspended, true},
		{"so can one that nobody configured", policy, gate(Unconfigured, NoBasis), CauseSuspend, 0, noon, Suspended, true},
		{"spend does not move a suspended team", policy, gate(Suspended, PlanBasis), CauseSpend, -500, noon, Suspended, false},
		{"a top-up does not open a suspended team", policy, gate(Suspended, PlanBasis), CauseReport, 500, noon, Suspended, false},
		{"time does not either", policy, gate(Suspended, PlanBasis), CauseElapsed, 500, later, Suspended, false},
		{"unsuspended with credits", policy, gate(Suspended, PlanBasis), CauseUnsuspend, 1, noon, Active, true},
		{"unsuspended without credits is not active", policy, gate(Suspended, PlanBasis), CauseUnsuspend, 0, noon, Exhausted, true},
		{"unsuspended that nobody configured", policy, gate(Suspended, NoBasis), CauseUnsuspend, 0, noon, Unconfigured, true},
		{"unsuspend of one that is not suspended", policy, gate(Active, PlanBasis), CauseUnsuspend, 5, noon, Active, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reason := ""
			if tt.cause == CauseSuspend {
				reason = "chargeback"
			}
			s := Signal{tt.cause, reason, tt.shadow, tt.now}
			got := tt.policy.Next(tt.gate, s)
			if got.State != tt.want || got.Generation-tt.gate.Generation > 0 != tt.told {
				t.Errorf("Next = %+v, want %s, told: %t", got, tt.want, tt.told)
			}
			if (got.State != tt.gate.State) != (got.ChangedAt != nil) {
				t.Errorf("Next = %+v, want changed_at set with the state only", got)
			}
			if again := tt.policy.Next(got, s); !cmp.Equal(got, again) {
				t.Errorf("applied twice (-once +twice):\n%s", cmp.Diff(got, again))
			}
		})
	}
}

func TestAnUnlimitedPlanIsNeverExhausted(t *testing.T) {
	t.Parallel()
	g := Gate{State: Active, Basis: PlanBasis, Unlimited: true}
	if got := policy.Next(g, Signal{CauseSpend, "", -1e15, noon}); got.State != Active {
		t.Errorf("Next = %+v, want active", got)
	}
}

// However signals come: a suspended team is only freed by Unsuspend, nobody
// without credits is let through but in a grace that is bounded in time and
// amount, and a grace is only had by a team that had credits since the last.
func TestGateHoldsItsPromisesWhateverHappens(t *testing.T) {
	t.Parallel()
	causes := []Cause{CauseSpend, CauseReport, CauseElapsed, CauseSuspend, CauseUnsuspend}
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		p := Policy{GracePeriod: time.Duration(rnd.IntN(3)) * time.Hour, Overdraft: money.NanoUSD(rnd.IntN(3) * 50)}
		g, now, positive := Gate{State: Unconfigured}, noon, false
		for range 100 {
			now = now.Add(time.Duration(rnd.IntN(40)) * time.Minute)
			if rnd.IntN(10) == 0 {
				g.Basis = []Basis{TrialBasis, PlanBasis, PlanBasis}[rnd.IntN(3)]
			}
			s := Signal{causes[rnd.IntN(len(causes))], "why", money.NanoUSD(rnd.IntN(300) - 150), now}
			next := p.Next(g, s)
			switch {
			case g.State == Suspended && next.State != Suspended && s.Cause != CauseUnsuspend:
				t.Fatalf("seed %d: %s freed %+v", seed, s.Cause, g)
			case next.Open() && s.Shadow <= 0 && next.State != Grace && next.Basis != NoBasis:
				t.Fatalf("seed %d: %+v is let through with %d", seed, next, s.Shadow)
			case next.State == Grace && (s.Shadow <= -p.Overdraft || !now.Before(*next.GraceUntil) || next.GraceUntil.Sub(now) > p.GracePeriod):
				t.Fatalf("seed %d: grace %+v at %s with %d", seed, next, now, s.Shadow)
			case next.State == Grace && g.State != Grace && !positive && g.State != Unconfigured:
				t.Fatalf("seed %d: grace twice for one debt: %+v", seed, next)
			case next.State == Exhausted && s.Shadow > 0:
				t.Fatalf("seed %d: exhausted with %d", seed, s.Shadow)
			case next.Status() != g.Status() && next.Generation == g.Generation:
				t.Fatalf("seed %d: keysvc does not hear of %+v", seed, next)
			case (next.State == Grace) != (next.GraceUntil != nil):
				t.Fatalf("seed %d: %+v", seed, next)
			}
			positive = positive && next.State != Grace || next.State == Active || next.State == Trial
			g = next
		}
	}
}

func TestTrialCreditsComeOnTopOfWhatWasBilledBefore(t *testing.T) {
	t.Parallel()
	b := NewBalance("acme")
	b.BilledNanoUSD = 70
	p := Policy{TrialCredits: 100}
	g, ok := p.startTrial(&b, noon)
	if !ok || b.Shadow() != 100 || g.AmountNanoUSD != 170 || b.Basis != TrialBasis {
		t.Errorf("startTrial = %+v, %t and %+v, want a shadow of 100", g, ok, b)
	}
	if _, ok := p.startTrial(&b, noon); ok {
		t.Error("a second trial was given")
	}
}
