package chaos

import (
	"testing"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// An Autumn whose reads fail while its writes work goes on being posted to.
func TestReadsThatFailHoldUpNoCharge(t *testing.T) {
	t.Parallel()
	s := newBooksStand(t, booksPlan{seed: 1, dedupe: "lock", teams: 1})
	s.bill(1, "team0", 1_000_000_000) // the first charge of a team needs a read
	s.pass(false)
	s.weather([]autumn.Fault{{Path: "/v1/customers/team0", Fault: autumn.FaultError503}})
	const more = 3
	for n := range more {
		if _, err := s.books().NudgeTeam(t.Context(), &billingv1.NudgeTeamRequest{TeamId: "team0", Cause: "test"}); err != nil {
			t.Fatal(err)
		}
		// Nothing that was read is no error of the pass.
		if _, err := s.outbox(0).ReconcileNow(t.Context(), &outboxv1.ReconcileNowRequest{}); err != nil {
			t.Fatal(err)
		}
		s.bill(2+n, "team0", 1_000_000_000)
		if _, err := s.outbox(1).DeliverNow(t.Context(), &outboxv1.DeliverNowRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range s.charges() {
		if c.GetState() != billingv1.ChargeState_CHARGE_STATE_POSTED {
			t.Errorf("charge %d is %s: %s", c.GetSeq(), c.GetState(), c.GetLastError())
		}
	}
	if got := s.sim.Applied()["team0"]; got.Calls != 1+more {
		t.Errorf("Autumn applied %+v, want %d charges", got, 1+more)
	}
}
