package billing

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

func TestSettlementApply(t *testing.T) {
	t.Parallel()
	until := noon.Add(time.Minute)
	leased := Charge{
		ChargeID: "c", TeamID: "acme", AmountNanoUSD: 100, State: Pending, Attempts: 2, DueAt: noon,
		LeaseToken: 2, RecordedToken: 1, LeaseWorker: "w", LeaseUntil: &until,
	}
	now := noon.Add(time.Second)
	tests := []struct {
		name   string
		given  func(*Charge)
		s      Settlement
		want   func(*Charge)
		posted money.NanoUSD
	}{
		{
			"applied posts all of it", nil,
			Settlement{Outcome: Applied, Proof: "deductions"},
			func(c *Charge) { c.State, c.Proof, c.SettledAt = Posted, "deductions", &now }, 100,
		},
		{
			"applied in part posts that part", nil,
			Settlement{Outcome: PartlyApplied, Proof: "deductions", AppliedNanoUSD: 40},
			func(c *Charge) {
				c.State, c.Proof, c.SettledAt, c.ShortfallNanoUSD = Short, "deductions", &now, 60
			}, 40,
		},
		{
			"not applied waits", nil,
			Settlement{Outcome: NotApplied, Error: "429", RetryAfter: time.Minute},
			func(c *Charge) { c.LastError, c.DueAt = "429", now.Add(time.Minute) }, 0,
		},
		{
			"not applied stays ambiguous after an unknown attempt", func(c *Charge) { c.State, c.Unsure = Ambiguous, true },
			Settlement{Outcome: NotApplied},
			func(c *Charge) { c.DueAt = now }, 0,
		},
		{
			"unknown is ambiguous", nil,
			Settlement{Outcome: Unknown, Error: "timeout", RetryAfter: time.Second},
			func(c *Charge) {
				c.State, c.Unsure, c.LastError, c.DueAt = Ambiguous, true, "timeout", now.Add(time.Second)
			}, 0,
		},
		{
			"a lease that was not used counts no attempt", nil,
			Settlement{Outcome: NotApplied, NotSent: true},
			func(c *Charge) { c.SentAttempts, c.DueAt = 0, now }, 0,
		},
		{
			"unknown of a lease that was not used leaves the charge as it was", func(c *Charge) { c.FirstSentAt = &noon },
			Settlement{Outcome: Unknown, NotSent: true},
			func(c *Charge) { c.SentAttempts, c.DueAt, c.FirstSentAt = 0, now, nil }, 0,
		},
		{
			"a key that is used up is followed by the next", func(c *Charge) { c.KeyRound = 1 },
			Settlement{Outcome: NotApplied, KeyUsedUp: true},
			func(c *Charge) { c.KeyRound, c.DueAt = 2, now }, 0,
		},
		{
			"never applied begins anew", func(c *Charge) { c.State, c.Unsure, c.FirstSentAt = Ambiguous, true, &noon },
			Settlement{Outcome: NeverApplied},
			func(c *Charge) {
				c.State, c.Unsure, c.FirstSentAt, c.SentAttempts, c.DueAt = Pending, false, nil, 0, now
			}, 0,
		},
		{
			"refused is dead", nil,
			Settlement{Outcome: Refused, Error: "400"},
			func(c *Charge) { c.State, c.LastError = Dead, "400" }, 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := leased
			if tt.given != nil {
				tt.given(&before)
			}
			tt.s.ChargeID, tt.s.LeaseToken = "c", 2
			want := before
			want.RecordedToken, want.LeaseWorker, want.LeaseUntil, want.SentAttempts = 2, "", nil, 1
			tt.want(&want)
			got, posted, err := tt.s.Apply(before, now)
			if diff := cmp.Diff(want, got); diff != "" || posted != tt.posted || err != nil {
				t.Fatalf("Apply posts %d, %v, want %d; charge (-want +got):\n%s", posted, err, tt.posted, diff)
			}
			again, posted, err := tt.s.Apply(got, now.Add(time.Hour))
			if diff := cmp.Diff(want, again); diff != "" || posted != 0 || err != nil {
				t.Errorf("repeated, Apply posts %d, %v; charge (-want +got):\n%s", posted, err, diff)
			}
		})
	}
}

func TestSettlementApplyRefuses(t *testing.T) {
	t.Parallel()
	leased := Charge{ChargeID: "c", AmountNanoUSD: 100, State: Pending, LeaseToken: 2, RecordedToken: 1}
	posted := leased
	posted.State, posted.RecordedToken = Posted, 2
	marked := leased
	marked.LeaseMarks, marked.SentToken = true, 2
	tests := []struct {
		name   string
		charge Charge
		s      Settlement
		want   fault.Kind
	}{
		{"a lease that was taken over", leased, Settlement{LeaseToken: 1, Outcome: Applied}, fault.Conflict},
		{"another outcome of a recorded attempt", posted, Settlement{LeaseToken: 2, Outcome: Refused}, fault.Conflict},
		{"a part that is the whole", leased, Settlement{LeaseToken: 2, Outcome: PartlyApplied, AppliedNanoUSD: 100}, fault.Invalid},
		{"a negative part", leased, Settlement{LeaseToken: 2, Outcome: PartlyApplied, AppliedNanoUSD: -1}, fault.Invalid},
		{"not sent, though it was marked as sent", marked, Settlement{LeaseToken: 2, Outcome: NotApplied, NotSent: true}, fault.Invalid},
		{"no outcome", leased, Settlement{LeaseToken: 2}, fault.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, sum, err := tt.s.Apply(tt.charge, noon)
			if diff := cmp.Diff(tt.charge, got); diff != "" || sum != 0 || fault.KindOf(err) != tt.want {
				t.Errorf("Apply = %d, %v, want kind %d; charge (-want +got):\n%s", sum, err, tt.want, diff)
			}
		})
	}
}
