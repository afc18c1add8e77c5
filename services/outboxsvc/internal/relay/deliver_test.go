package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// queue is a Charges in memory: what is in due is leased in one go.
type queue struct {
	mu      sync.Mutex
	due     []Lease
	settled map[string]Settlement
	// again leases a charge that was settled without a wait once more.
	again bool
	fail  error
}

func (q *queue) Lease(_ context.Context, _ string, limit int, _ time.Duration) ([]Lease, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(limit, len(q.due))
	out := q.due[:n:n]
	q.due = q.due[n:]
	return out, nil
}

func (q *queue) Settle(ctx context.Context, s Settlement) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := errors.Join(ctx.Err(), q.fail); err != nil {
		return err
	}
	q.settled[s.ChargeID] = s
	if q.again && s.Outcome == NotApplied && s.RetryAfter == 0 {
		c := charge(s.ChargeID)
		c.Attempts = 2
		q.due = append(q.due, Lease{c, s.Token + 1})
	}
	return nil
}

func (q *queue) Dead(context.Context, DeadQuery) ([]DeadCharge, string, error) { return nil, "", nil }
func (q *queue) Requeue(context.Context, []string) ([]string, error)           { return nil, nil }

// sink answers as its function says.
type sink struct {
	mu       sync.Mutex
	answer   func(n int, c Charge) Answer // n counts posts from 1
	posts    []Charge
	created  []string
	notReady error
}

func (s *sink) Ready(context.Context) error { return s.notReady }

func (s *sink) Post(_ context.Context, c Charge) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts = append(s.posts, c)
	return s.answer(len(s.posts), c)
}

func (s *sink) CreateCustomer(_ context.Context, team string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = append(s.created, team)
	return nil
}

func (s *sink) Balance(context.Context, string) (Balance, error) { return Balance{}, nil }

// charge is a first attempt at 1 credit for a team named after it.
func charge(id string) Charge {
	return Charge{ChargeID: id, TeamID: "team of " + id, AmountNanoUSD: money.Credit, Attempts: 1, FirstSentAt: noon}
}

func relayOf(s *sink, charges ...Charge) (*Service, *queue) {
	q := &queue{settled: map[string]Settlement{}}
	for _, c := range charges {
		q.due = append(q.due, Lease{c, 1})
	}
	svc := New(q, s, Options{Worker: "test", Concurrency: 4})
	svc.now = func() time.Time { return noon }
	svc.jitter = func(d time.Duration) time.Duration { return d }
	return svc, q
}

func applied(int, Charge) Answer {
	return Answer{Status: 200, Says: true, Deducted: 1_000_000, HasBalance: true, Balance: "9"}
}

func TestDeliverPostsAllThatIsDue(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied}
	var charges []Charge
	for i := range 10 {
		charges = append(charges, charge(fmt.Sprint("c", i)))
	}
	svc, q := relayOf(s, charges...)
	p, err := svc.Deliver(t.Context())
	if err != nil || p != (Pass{Attempts: 10, Applied: 10}) {
		t.Errorf("Deliver = %+v, %v, want 10 attempts, 10 applied", p, err)
	}
	want := Settlement{ChargeID: "c7", Token: 1, Outcome: Applied, Proof: "deductions", RetryAfter: 2 * time.Second, SinkBalanceCredits: "9"}
	if diff := cmp.Diff(want, q.settled["c7"]); diff != "" || len(q.settled) != 10 {
		t.Errorf("%d settled; c7 (-want +got):\n%s", len(q.settled), diff)
	}
	if st := svc.Stats(); st.Outcomes[Applied] != 10 || !st.LastPassAt.Equal(noon) || st.LastError != "" || !st.SinkConfigured {
		t.Errorf("Stats = %+v", st)
	}
}

func TestDeliverWithoutASinkLeasesNothing(t *testing.T) {
	t.Parallel()
	svc, q := relayOf(nil, charge("a"))
	svc.sink = nil
	if p, err := svc.Deliver(t.Context()); err != nil || p != (Pass{}) || len(q.due) != 1 {
		t.Errorf("Deliver = %+v, %v with %d left, want nothing done", p, err, len(q.due))
	}
	if _, err := svc.SinkBalance(t.Context(), "acme"); fault.KindOf(err) != fault.Precondition {
		t.Errorf("SinkBalance = %v, want Precondition", err)
	}
}

func TestDeliverLeasesNothingWhileTheSinkIsNotReady(t *testing.T) {
	t.Parallel()
	svc, q := relayOf(&sink{notReady: fault.Errorf(fault.Precondition, "wrong environment")}, charge("a"))
	if _, err := svc.Deliver(t.Context()); fault.KindOf(err) != fault.Precondition || len(q.due) != 1 {
		t.Errorf("Deliver = %v with %d left, want Precondition and nothing leased", err, len(q.due))
	}
	if got := svc.Stats().LastError; got != "wrong environment" {
		t.Errorf("last error = %q", got)
	}
}

func TestAMissingCustomerIsCreatedOnceAPass(t *testing.T) {
	t.Parallel()
	s := &sink{answer: func(int, Charge) Answer { return Answer{Status: 404, Code: "customer_not_found"} }}
	svc, q := relayOf(s, charge("a"))
	q.again = true
	p, err := svc.Deliver(t.Context())
	if err != nil || p.Attempts != 2 {
		t.Errorf("Deliver = %+v, %v, want a second attempt at once and no third", p, err)
	}
	if diff := cmp.Diff([]string{"team of a"}, s.created); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if got := q.settled["a"].RetryAfter; got != 4*time.Second {
		t.Errorf("wait after the second = %s, want 4s", got)
	}
}

func TestARefusedKeyStopsThePass(t *testing.T) {
	t.Parallel()
	s := &sink{answer: func(n int, _ Charge) Answer { return Answer{Status: 401, Code: "invalid_secret_key"} }}
	var charges []Charge
	for i := range 6 {
		charges = append(charges, charge(fmt.Sprint("c", i)))
	}
	svc, q := relayOf(s, charges...)
	svc.opt.Concurrency = 1
	// The queue hands out one at a time, so nothing else is leased at all.
	_, err := svc.Deliver(t.Context())
	if fault.KindOf(err) != fault.Precondition || len(s.posts) != 1 || len(q.due) != 5 {
		t.Errorf("Deliver = %v after %d posts with %d left, want it to stop after one", err, len(s.posts), len(q.due))
	}
	// Of a batch that is leased already the rest is given back unsent.
	p := &pass{created: map[string]bool{}}
	p.halt("401")
	v, _, sent := svc.try(t.Context(), p, charge("x"))
	if v.Outcome != NotApplied || sent || len(s.posts) != 1 {
		t.Errorf("try = %+v, sent %t, want it not applied and not sent", v, sent)
	}
}

func TestAnAmbiguousChargeIsNotSentAgainAfterTwentyHours(t *testing.T) {
	t.Parallel()
	old, young, unsent := charge("old"), charge("young"), charge("pending")
	old.Ambiguous, old.FirstSentAt, old.Attempts = true, noon.Add(-20*time.Hour-time.Second), 9
	young.Ambiguous, young.FirstSentAt, young.Attempts = true, noon.Add(-20*time.Hour), 9
	unsent.FirstSentAt, unsent.Attempts = noon.Add(-100*time.Hour), 9
	s := &sink{answer: applied}
	svc, q := relayOf(s, old, young, unsent)
	p, err := svc.Deliver(t.Context())
	if err != nil || p != (Pass{Attempts: 2, Applied: 2}) {
		t.Errorf("Deliver = %+v, %v, want the other two posted", p, err)
	}
	got := q.settled["old"]
	if got.Outcome != Unknown || got.RetryAfter != 5*time.Minute || !strings.Contains(got.Error, "verified by hand") {
		t.Errorf("the old one = %+v, want it unknown, for a human", got)
	}
}

func TestAnAmountThatAutumnCannotHoldIsRefused(t *testing.T) {
	t.Parallel()
	c := charge("a")
	c.AmountNanoUSD = 15
	s := &sink{answer: applied}
	svc, q := relayOf(s, c)
	if _, err := svc.Deliver(t.Context()); err != nil || q.settled["a"].Outcome != Refused || len(s.posts) != 0 {
		t.Errorf("Deliver: %v, settled %+v after %d posts, want it refused unsent", err, q.settled["a"], len(s.posts))
	}
}

func TestALostLeaseIsAnotherWorkersBusiness(t *testing.T) {
	t.Parallel()
	svc, q := relayOf(&sink{answer: applied}, charge("a"))
	q.fail = fault.Errorf(fault.Conflict, "no longer leased")
	if _, err := svc.Deliver(t.Context()); err != nil {
		t.Errorf("Deliver = %v, want no error", err)
	}
	svc, q = relayOf(&sink{answer: applied}, charge("a"))
	q.fail = fault.Errorf(fault.Unavailable, "billing is down")
	if _, err := svc.Deliver(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Deliver = %v, want Unavailable", err)
	}
}

func TestAPostUnderWayIsSettledAfterShutdown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := &sink{answer: func(n int, c Charge) Answer { cancel(); return applied(n, c) }}
	svc, q := relayOf(s, charge("a"))
	if _, err := svc.Deliver(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Deliver = %v, want canceled", err)
	}
	if q.settled["a"].Outcome != Applied {
		t.Errorf("settled = %+v, want it applied", q.settled["a"])
	}
}
