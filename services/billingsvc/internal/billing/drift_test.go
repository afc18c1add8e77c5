package billing

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func credit(n int64) money.NanoUSD { return money.NanoUSD(n) * money.Credit }

func charge(id string, credits int64) Charge {
	return Charge{ChargeID: id, AmountNanoUSD: credit(credits), State: Posted}
}

func doubtful(id string, credits int64) Charge {
	c := charge(id, credits)
	c.State, c.Unsure = Ambiguous, true
	return c
}

// A team was granted 1000 credits, has posted 300, and used 20 at the sink
// before our books of it began.
func TestCompareExplainsDrift(t *testing.T) {
	t.Parallel()
	monthEnd, nextEnd := noon.Add(time.Hour), noon.Add(31*24*time.Hour)
	inFlight := doubtful("flying", 7)
	inFlight.LeaseUntil = &monthEnd
	tests := []struct {
		name                string
		change              func(*Standing)
		balance, usage      money.NanoUSD
		resetAt             *time.Time
		noBalance           bool
		want                Class
		grant               money.NanoUSD
		fixed               bool
		explains, confirmed []string
	}{
		{"all agrees", nil, credit(700), credit(320), nil, false, ClassNone, 0, true, nil, nil},
		{"what doubles lose is rounding", nil, credit(700) - 50, credit(320) + 50, nil, false, ClassRounding, 0, true, nil, nil},
		{
			"what is not confirmed yet is no drift", func(s *Standing) { s.Balance.BilledNanoUSD = credit(900) },
			credit(700), credit(320), nil, false, ClassNone, 0, true, nil, nil,
		},
		{"a top-up", nil, credit(1200), credit(320), nil, false, ClassGrant, credit(500), true, nil, nil},
		{"a plan that ended", nil, credit(200), credit(320), nil, false, ClassGrantRemoved, credit(-500), true, nil, nil},
		{
			"an ambiguous charge was applied", func(s *Standing) { s.Doubt = []Charge{doubtful("d", 40)} },
			credit(660), credit(360), nil, false, ClassDoubtApplied, 0, true,
			[]string{"d"},
			[]string{"d"},
		},
		{
			"an ambiguous charge was not applied", func(s *Standing) { s.Doubt = []Charge{doubtful("d", 40)} },
			credit(700), credit(320), nil, false, ClassNone, 0, true, nil, nil,
		},
		{
			"two ambiguous charges of one amount prove neither", func(s *Standing) { s.Doubt = []Charge{doubtful("d", 40), doubtful("e", 40)} },
			credit(660), credit(360), nil, false, ClassInFlight, 0, true,
			[]string{"d"},
			nil,
		},
		{
			"a charge under way is its sender's", func(s *Standing) { s.Doubt = []Charge{inFlight} },
			credit(693), credit(327), nil, false, ClassInFlight, 0, true,
			[]string{"flying"},
			nil,
		},
		{
			"a charge was settled after the sink was read", func(s *Standing) { s.Late = []Charge{charge("late", 30)} },
			credit(730), credit(290), nil, false, ClassInFlight, 0, true,
			[]string{"late"},
			nil,
		},
		{
			"a top-up while a charge turns out to be applied", func(s *Standing) { s.Doubt = []Charge{doubtful("d", 40)} },
			credit(1160), credit(360), nil, false, ClassGrant, credit(500), true,
			[]string{"d"},
			[]string{"d"},
		},
		{
			"the sink lost a charge", func(s *Standing) { s.Posted = []Charge{charge("a", 11), charge("b", 25)} },
			credit(725), credit(295), nil, false, ClassMissingCharge, 0, false,
			[]string{"b"},
			nil,
		},
		{
			"the sink lost the newest charges", func(s *Standing) { s.Posted = []Charge{charge("a", 11), charge("b", 25), charge("c", 60)} },
			credit(796), credit(224), nil, false, ClassMissingCharge, 0, false,
			[]string{"a", "b", "c"},
			nil,
		},
		{
			"a charge was applied twice", func(s *Standing) { s.Posted = []Charge{charge("a", 11), charge("b", 25)} },
			credit(675), credit(345), nil, false, ClassDoubleCharge, 0, false,
			[]string{"b"},
			nil,
		},
		{
			"a charge was applied twice and a top-up came", func(s *Standing) { s.Posted = []Charge{charge("b", 25)} },
			credit(1175), credit(345), nil, false, ClassDoubleCharge, credit(500), false,
			[]string{"b"},
			nil,
		},
		{"somebody else used credits", nil, credit(600), credit(420), nil, false, ClassUnexplained, 0, false, nil, nil},
		{"the customer was made anew", nil, credit(1000), 0, nil, false, ClassCustomerReset, 0, false, nil, nil},
		{
			"a new cycle began", func(s *Standing) { s.ResetAt = ptr(noon.Add(-time.Minute)) },
			credit(990), credit(10), &nextEnd, false, ClassReset, credit(290), true, nil, nil,
		},
		{
			"the end of the cycle moved before it came", func(s *Standing) { s.ResetAt = &monthEnd },
			credit(700), credit(320), &nextEnd, false, ClassNone, 0, true, nil, nil,
		},
		{
			"the first report", func(s *Standing) { s.Balance.Basis = TrialBasis },
			credit(500), credit(80), nil, false, ClassBaseline, credit(-200), true, nil, nil,
		},
		{
			"the first report of a team that has no balance", func(s *Standing) { s.Balance.Basis = NoBasis },
			0, 0, nil, true, ClassNoBalance, 0, true, nil, nil,
		},
		{"the balance is gone", nil, 0, 0, nil, true, ClassNoBalance, 0, false, nil, nil},
		{
			"the beginning of the books held a charge that was in doubt",
			func(s *Standing) { s.Base = []Charge{charge("old", 50)} },
			credit(750), credit(270), nil, false, ClassBaseline, credit(50), true,
			[]string{"old"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := NewBalance("acme")
			b.GrantedNanoUSD, b.PostedNanoUSD, b.BilledNanoUSD, b.Basis = credit(1000), credit(300), credit(300), PlanBasis
			st := Standing{Balance: b, BaseUsage: credit(20)}
			if tt.change != nil {
				tt.change(&st)
			}
			got := st.Compare(Sighting{Balance: tt.balance, Usage: tt.usage, ResetAt: tt.resetAt, NoBalance: tt.noBalance, ObservedAt: noon})
			if got.Class != tt.want || got.Grant != tt.grant || got.Fixed != tt.fixed {
				t.Errorf("Compare = %+v, want %s, a grant of %s, fixed: %t", got, tt.want, tt.grant.Credits(), tt.fixed)
			}
			if diff := cmp.Diff(append([]string{}, tt.explains...), ids(got.Explains)); diff != "" {
				t.Errorf("explained by (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(append([]string{}, tt.confirmed...), ids(got.Confirm)); diff != "" {
				t.Errorf("confirmed (-want +got):\n%s", diff)
			}
			if !got.Fixed && got.Unresolved == 0 {
				t.Errorf("Compare = %+v, want to hear how much is unresolved", got)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }
