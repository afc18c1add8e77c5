package chaos

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// TestBooks bills teams for four days, by rows of the ledger and by recorded events,
// while Autumn fails, is away for three of the days, takes nothing of one team, and the
// services are killed. What Autumn took from a team is what it was billed, to a
// micro-credit, no charge was taken twice, and the team that fails delays no other. Where a fault may break that, a
// reconciliation must have said so. BOOKS_SEEDS says how many seeds are tried,
// BOOKS_FIRST which is the first: `make books SEEDS=200`. Without, one seed is
// tried with half as many passes.
func TestBooks(t *testing.T) {
	t.Parallel()
	first := number(t, "BOOKS_FIRST", 1)
	for seed := first; seed < first+number(t, "BOOKS_SEEDS", 1); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			p := newBooksPlan(seed)
			if os.Getenv("BOOKS_SEEDS") == "" {
				p.stride *= 2
			}
			s := newBooksStand(t, p)
			billed := s.live()
			s.othersSettle()
			s.settle()
			s.verdict(billed)
		})
	}
}

// live runs the plan and returns what each team was billed, in nano-dollars.
func (s *booksStand) live() map[string]int64 {
	s.t.Helper()
	const day = 24 * time.Hour
	billed, start, recorded := map[string]int64{}, s.clock.Now(), 0
	for s.clock.Now().Sub(start) < 4*day {
		if recorded < s.events && s.rnd.IntN(2) == 0 {
			recorded++
			team := s.teamNames()[s.rnd.IntN(s.teams+1)]
			billed[team] += s.owe(recorded, team)
		}
		rules, stride := s.rules, s.stride
		if since := s.clock.Now().Sub(start); since >= day/2 && since < day/2+3*day {
			rules, stride = append([]autumn.Fault{{Fault: s.down, Path: "/v1/track"}}, rules...), 4*s.stride
		}
		s.weather(append([]autumn.Fault{s.sicken()}, rules...))
		s.pass(true)
		s.clock.advance(time.Second + time.Duration(s.rnd.Int64N(int64(stride))))
	}
	return billed
}

// teamNames are the teams, the sick one included.
func (s *booksStand) teamNames() []string {
	names := []string{sick}
	for n := range s.teams {
		names = append(names, fmt.Sprint("team", n))
	}
	return names
}

// sicken is the rule by which nothing of the sick team is taken.
func (s *booksStand) sicken() autumn.Fault {
	return autumn.Fault{Path: "/v1/track", CustomerID: sick, Fault: s.sickness}
}

// owe bills a team something by a row of the ledger or by an event, and returns how
// much.
func (s *booksStand) owe(n int, team string) int64 {
	s.t.Helper()
	price := 1 + s.rnd.Int64N(2_000_000_000)
	if s.rnd.IntN(2) == 0 {
		s.bill(n, team, price)
		return price
	}
	const markup = 3
	s.ledger.spend(team, price/markup+1, s.clock.Now())
	s.sync()
	return (price/markup + 1) * markup
}

// bill records an event and freezes it into a charge.
func (s *booksStand) bill(n int, team string, price int64) {
	s.t.Helper()
	_, err := s.books().RecordEvent(s.t.Context(), &billingv1.RecordEventRequest{
		IdempotencyKey: fmt.Sprintf("compute:%d", n), TeamId: team, EventType: "compute", Quantity: 1, PriceNanoUsd: price,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.sync()
}

// sync freezes what was spent into charges.
func (s *booksStand) sync() {
	s.t.Helper()
	if _, err := s.books().SyncNow(s.t.Context(), &billingv1.SyncNowRequest{}); err != nil {
		s.t.Fatal(err)
	}
}

// weather sets the faults; each pass draws anew.
func (s *booksStand) weather(rules []autumn.Fault) {
	s.t.Helper()
	for i := range rules {
		rules[i].Seed += uint64(s.clock.Now().Unix())
	}
	if err := s.sim.SetFaults(rules...); err != nil {
		s.t.Fatal(err)
	}
}

// pass lets the replicas deliver side by side and read what is due, and may kill
// somebody meanwhile. Errors are what the plan is made of.
func (s *booksStand) pass(deadly bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	var g sync.WaitGroup
	for n := range s.replicas {
		g.Go(func() { _, _ = s.outbox(n).DeliverNow(ctx, &outboxv1.DeliverNowRequest{}) })
	}
	var dead []int
	billingDies := deadly && s.rnd.Float64() < s.kills/4
	for n := range s.replicas {
		if deadly && s.rnd.Float64() < s.kills {
			dead = append(dead, n)
			wait := s.moment()
			g.Go(func() { <-time.After(wait); s.replicas[n].kill() })
		}
	}
	if billingDies {
		wait := s.moment()
		g.Go(func() { <-time.After(wait); s.billing.kill() })
	}
	g.Wait()
	s.requests.still()
	s.raise(dead, billingDies)
	s.clock.advance(time.Second)
	_, _ = s.outbox(0).ReconcileNow(ctx, &outboxv1.ReconcileNowRequest{})
	s.requests.still()
}

// raise starts what was killed. Replicas of a billing that is gone find the new
// one as they would through a load balancer.
func (s *booksStand) raise(dead []int, billing bool) {
	s.t.Helper()
	s.deaths += len(dead)
	if billing {
		s.deaths++
		s.startBilling()
		dead = []int{0, 1}
		for n := range s.replicas {
			s.replicas[n].kill()
		}
	}
	for _, n := range dead {
		s.startReplica(n)
	}
}

// settle ends the faults and lets everything come to rest. What only a human can
// settle is settled as a human does who looks at Autumn's side.
func (s *booksStand) settle() {
	s.t.Helper()
	s.weather(nil)
	s.rest(func(*billingv1.Charge) bool { return true })
	for range 3 { // what is left over shows now
		s.clock.advance(25 * time.Hour)
		s.pass(false)
	}
}

// othersSettle ends the faults of all teams but the sick one, and lets the others'
// charges come to rest.
func (s *booksStand) othersSettle() {
	s.t.Helper()
	s.weather([]autumn.Fault{s.sicken()})
	s.rest(func(c *billingv1.Charge) bool { return c.GetTeamId() != sick })
	if took := s.sim.Applied()[sick]; took.Calls > 0 {
		s.t.Errorf("%s: Autumn took %+v from the sick team", s, took)
	}
}

// rest makes passes until the charges that are meant are settled.
func (s *booksStand) rest(meant func(*billingv1.Charge) bool) {
	s.t.Helper()
	for round := 0; !s.quiet(meant); round++ {
		if round == 400 {
			for _, c := range s.charges() {
				s.t.Logf("%s of %s %s: %s", c.GetChargeId(), c.GetTeamId(), c.GetState(), c.GetLastError())
			}
			s.t.Fatalf("%s: charges are open after 400 passes without faults", s)
		}
		s.clock.advance(3 * time.Minute)
		s.pass(false)
		s.byHand()
	}
}

func (s *booksStand) charges() (all []*billingv1.Charge) {
	s.t.Helper()
	req := &billingv1.ListChargesRequest{PageSize: 1000}
	for {
		page, err := s.books().ListCharges(s.t.Context(), req)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, page.GetCharges()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

func (s *booksStand) quiet(meant func(*billingv1.Charge) bool) bool {
	for _, c := range s.charges() {
		if meant(c) && c.SettledAt == nil {
			return false
		}
	}
	return true
}

// byHand resolves dead charges by what the oracle says, and accepts drifts that
// keep charges from being verified.
func (s *booksStand) byHand() {
	s.t.Helper()
	for _, c := range s.charges() {
		if c.GetState() != billingv1.ChargeState_CHARGE_STATE_DEAD {
			continue
		}
		r := &outboxv1.ResolveChargeRequest{ChargeId: c.GetChargeId(), Resolution: outboxv1.Resolution_RESOLUTION_NOT_APPLIED, Reason: "Autumn does not have it"}
		if calls, took := s.applied(c); calls > 0 {
			r.Resolution, r.AppliedNanoUsd, r.Reason = outboxv1.Resolution_RESOLUTION_APPLIED, took/1000, "Autumn has it"
		}
		if _, err := s.outbox(0).ResolveCharge(s.t.Context(), r); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, team := range s.teamNames() {
		list, err := s.books().ListReconciliations(s.t.Context(), &billingv1.ListReconciliationsRequest{TeamId: team, PageSize: 1})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range list.GetReconciliations() {
			if r.GetFixed() {
				continue
			}
			// It is refused when there is a newer one meanwhile.
			_, _ = s.books().AcceptDrift(s.t.Context(), &billingv1.AcceptDriftRequest{TeamId: team, ReconciliationId: r.GetReconciliationId(), Reason: "looked into"})
		}
	}
}

// applied asks the oracle how often and how much of a charge was taken, in 1e-10
// credits, under all the rounds of its key.
func (s *booksStand) applied(c *billingv1.Charge) (calls int, sum int64) {
	byKey := s.sim.AppliedByKey()
	for round := int32(1); round <= c.GetKeyRound(); round++ {
		key := "llm-proxy:default:books:batch:" + c.GetChargeId()
		if round > 1 {
			key += fmt.Sprint(":r", round)
		}
		calls += byKey[key].Calls
		sum += int64(byKey[key].Credits)
	}
	return calls, sum
}

// verdict compares the books with the oracle.
func (s *booksStand) verdict(billed map[string]int64) {
	s.t.Helper()
	const micro, hidden = 10_000, 100_000 // in 1e-10 credits; Autumn's doubles hide the latter
	wrong, lost, charged := map[string][]string{}, map[string]int64{}, map[string]int64{}
	short, shorts := map[string]int64{}, map[string]int64{}
	charges := s.charges()
	for _, c := range charges {
		calls, took := s.applied(c)
		off := took - (c.GetAmountNanoUsd()-c.GetShortfallNanoUsd())*1000
		charged[c.GetTeamId()] += c.GetAmountNanoUsd()
		if c.GetShortfallNanoUsd() > 0 {
			short[c.GetTeamId()] += c.GetShortfallNanoUsd()
			shorts[c.GetTeamId()]++
		}
		lost[c.GetTeamId()] += max(off, -off)
		if c.GetProof() == "" {
			s.t.Errorf("%s: charge %s is settled without a proof", s, c.GetChargeId())
		}
		if calls > 1 || max(off, -off) > micro {
			wrong[c.GetTeamId()] = append(wrong[c.GetTeamId()], fmt.Sprintf("%s was applied %d times, off by %d e-10 credits (proof %s)", c.GetChargeId(), calls, off, c.GetProof()))
		}
	}
	for team, sum := range billed {
		if carried := sum - charged[team]; carried < 0 || carried >= 10 {
			s.t.Errorf("%s: %s was billed %d nano-dollars and charged %d", s, team, sum, charged[team])
		}
		// Of a part Autumn takes half a micro-credit, where the books have whole ones.
		took := int64(s.sim.Applied()[team].Credits)
		if off := took - (sum-short[team])*1000; len(wrong[team]) == 0 && max(off, -off) > max(micro, shorts[team]*micro/2) {
			s.t.Errorf("%s: %s was billed %d nano-dollars, %d of it short, and Autumn took %d e-10 credits", s, team, sum, short[team], took)
		}
		found := s.found(team)
		if len(wrong[team]) > 0 && (!s.breaks || !found && lost[team] > hidden) {
			s.t.Errorf("%s: %s: %s; found: %t", s, team, strings.Join(wrong[team], "; "), found)
		}
	}
	audit, err := s.books().AuditBilling(s.t.Context(), &billingv1.AuditBillingRequest{Full: true})
	if err != nil || len(audit.GetFaults()) > 0 {
		s.t.Errorf("%s: AuditBilling = %v, %v", s, audit.GetFaults(), err)
	}
	s.t.Logf("%s: %d charges, %d deaths, %d teams wrong", s, len(charges), s.deaths, len(wrong))
}

// found says whether a reconciliation told of a drift that it could not put right.
func (s *booksStand) found(team string) bool {
	s.t.Helper()
	list, err := s.books().ListReconciliations(s.t.Context(), &billingv1.ListReconciliationsRequest{TeamId: team, OnlyFaults: true, PageSize: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list.GetReconciliations()) > 0
}
