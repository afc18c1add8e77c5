package billing

import (
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

func TestTopUpDue(t *testing.T) {
	t.Parallel()
	before, after := noon.Add(-time.Hour), noon.Add(-time.Minute)
	tests := []struct {
		name   string
		change func(*TopUpRule, *Balance, *TopUpTally)
		want   bool
	}{
		{"below the threshold", nil, true},
		{"not below it", func(_ *TopUpRule, b *Balance, _ *TopUpTally) { b.GrantedNanoUSD = 100 }, false},
		{"switched off", func(r *TopUpRule, _ *Balance, _ *TopUpTally) { r.Enabled = false }, false},
		{"one is under way", func(_ *TopUpRule, _ *Balance, t *TopUpTally) { t.Open = true }, false},
		{"enough for this month", func(_ *TopUpRule, _ *Balance, t *TopUpTally) { t.ThisMonth = 3 }, false},
		{"suspended", func(_ *TopUpRule, b *Balance, _ *TopUpTally) { b.State = Suspended }, false},
		{"no plan", func(_ *TopUpRule, b *Balance, _ *TopUpTally) { b.Basis = TrialBasis }, false},
		{"declined this month", func(r *TopUpRule, _ *Balance, _ *TopUpTally) { r.DeclinedAt = &before }, false},
		{"declined last month", func(r *TopUpRule, _ *Balance, _ *TopUpTally) { r.DeclinedAt = ptr(noon.AddDate(0, -1, 0)) }, true},
		{"bought, and the balance was not read since", func(_ *TopUpRule, _ *Balance, t *TopUpTally) {
			t.LastSettledAt, t.ReconciledAt = &after, &before
		}, false},
		{"bought, and the balance is low all the same", func(_ *TopUpRule, _ *Balance, t *TopUpTally) {
			t.LastSettledAt, t.ReconciledAt = &before, &after
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := TopUpRule{TeamID: "acme", Enabled: true, BelowNanoUSD: 100, AmountNanoUSD: 1000, MaxPerMonth: 3}
			b := Balance{GrantedNanoUSD: 99, Gate: Gate{State: Active, Basis: PlanBasis}}
			var tally TopUpTally
			if tt.change != nil {
				tt.change(&r, &b, &tally)
			}
			if got := r.Due(b, tally, noon); got != tt.want {
				t.Errorf("Due = %t, want %t", got, tt.want)
			}
		})
	}
}

func TestTopUpSettlementApply(t *testing.T) {
	t.Parallel()
	open := TopUp{TopUpID: "u", State: TopUpPending, LeaseToken: 2, RecordedToken: 1}
	for outcome, want := range map[TopUpOutcome]TopUpState{
		TopUpPaid: TopUpSucceeded, TopUpNo: TopUpDeclined, TopUpRefused: TopUpFailed, TopUpUnsure: TopUpUnknown, TopUpNotDone: TopUpPending,
	} {
		s := TopUpSettlement{TopUpID: "u", LeaseToken: 2, Outcome: outcome}
		got, err := s.Apply(open, noon)
		if err != nil || got.State != want {
			t.Errorf("%s: Apply = %s, %v, want %s", outcome, got.State, err, want)
		}
		if again, err := s.Apply(got, noon.Add(time.Hour)); err != nil || again.State != got.State || again.DueAt != got.DueAt {
			t.Errorf("%s: repeated, Apply = %+v, %v, want %+v", outcome, again, err, got)
		}
	}
	if _, err := (TopUpSettlement{LeaseToken: 1, Outcome: TopUpPaid}).Apply(open, noon); fault.KindOf(err) != fault.Conflict {
		t.Errorf("Apply with an older lease = %v, want Conflict", err)
	}
}
