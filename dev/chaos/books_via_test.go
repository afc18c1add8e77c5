package chaos

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
	"github.com/proliferate-ai/llm-proxy/sim/stripe"
)

// inDoubt is a stand with one charge that Autumn applied and whose answer was lost,
// and whose replicas have come back with other settings.
func inDoubt(t *testing.T, dedupe string, then func(*booksStand) map[string]string) *booksStand {
	t.Helper()
	s := newBooksStand(t, booksPlan{seed: 1, dedupe: dedupe, teams: 1, sickness: autumn.FaultHTML502})
	s.bill(1, "team0", 1_000_000_000)
	s.weather([]autumn.Fault{{Path: "/v1/track", Fault: autumn.FaultDropAfterApply}})
	s.pass(false)
	s.weather(nil)
	if c := s.charges()[0]; c.GetState() != billingv1.ChargeState_CHARGE_STATE_AMBIGUOUS || s.sim.Applied()["team0"].Calls != 1 {
		t.Fatalf("the charge is %v, applied %+v, want it applied and in doubt", c, s.sim.Applied())
	}
	s.restart(then(s))
	return s
}

// restart starts the replicas anew with settings of their own.
func (s *booksStand) restart(settings map[string]string) {
	s.t.Helper()
	s.outboxes = settings
	for n := range s.replicas {
		s.replicas[n].kill()
		s.startReplica(n)
	}
}

// A charge in doubt is applied once, whatever the outbox is told meanwhile of how
// charges are to be told apart.
func TestADoubtOutlivesTheSettingsItWasSentWith(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, dedupe string
		then         map[string]string
	}{
		{"a lock, then Idempotency-Key", "lock", map[string]string{"AUTUMN_DEDUPE": "idempotency_key"}},
		{"Idempotency-Key, then a lock", "idempotency_key", map[string]string{"AUTUMN_DEDUPE": "lock"}},
		{"a lock of another installation", "lock", map[string]string{"INSTALLATION_ID": "other"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := inDoubt(t, row.dedupe, func(*booksStand) map[string]string { return row.then })
			s.settle()
			if got := s.sim.Applied()["team0"]; got.Calls != 1 || got.Credits.String() != "100" {
				t.Errorf("Autumn applied %+v, want 100 once", got)
			}
		})
	}
}

// A charge in doubt at Autumn is not sent to Stripe. It is counted and says what is to
// be done.
func TestADoubtAtAnotherSinkIsLeftToAHuman(t *testing.T) {
	t.Parallel()
	const key = "sk_test_of_the_books"
	var meters *stripe.Server
	s := inDoubt(t, "lock", func(s *booksStand) map[string]string {
		meters = stripe.New(stripe.Options{SecretKey: key, Now: s.clock.Now})
		srv := httptest.NewServer(meters)
		t.Cleanup(srv.Close)
		return map[string]string{"BILLING_SINK": "stripe", "STRIPE_API_KEY": key, "STRIPE_API_URL": srv.URL}
	})
	s.clock.advance(time.Hour)
	s.pass(false)
	s.pass(false) // a replica that was done first counts what the other left
	c := s.charges()[0]
	if c.GetState() != billingv1.ChargeState_CHARGE_STATE_AMBIGUOUS || !strings.Contains(c.GetLastError(), "autumn/lock") || !strings.Contains(c.GetLastError(), "by hand") {
		t.Errorf("the charge = %v, want it in doubt, with what is to be done", c)
	}
	stats, err := s.outbox(1).GetStats(t.Context(), &outboxv1.GetStatsRequest{})
	if err != nil || stats.GetUndecided() != 1 || len(meters.Applied()) != 0 {
		t.Errorf("GetStats = %v, %v and Stripe took %v, want one undecided and nothing", stats, err, meters.Applied())
	}
	_, err = s.outbox(0).ResolveCharge(t.Context(), &outboxv1.ResolveChargeRequest{
		ChargeId: c.GetChargeId(), Resolution: outboxv1.Resolution_RESOLUTION_APPLIED, Reason: "Autumn has it",
	})
	if err != nil {
		t.Fatal(err)
	}
	s.bill(2, "team0", 1_000_000_000) // what is new goes to the new sink
	s.pass(false)
	if stats, err = s.outbox(1).GetStats(t.Context(), &outboxv1.GetStatsRequest{}); err != nil || stats.GetUndecided() != 0 {
		t.Errorf("GetStats of the other replica = %v, %v, want none undecided", stats, err)
	}
	if got := meters.Applied(); len(got) != 1 {
		t.Errorf("Stripe took %v, want the second charge: %v", got, s.charges())
	}
}
