package relay_test

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
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
)

// sink answers as its functions say.
type sink struct {
	mu       sync.Mutex
	answer   func(n int, c relay.Charge) relay.Answer // n counts posts from 1
	posts    []relay.Charge
	created  []string
	notReady error
	dedupe   relay.Dedupe
	device   string // it is sent by
	none     bool
	noCreate error  // why no customer can be created
	used     string // the usage that it shows; empty: no balance
	since    time.Time
	held     money.NanoUSD
	buy      func(relay.TopUp) relay.Purchase
}

func (s *sink) Configured() bool            { return !s.none }
func (s *sink) Ready(context.Context) error { return s.notReady }
func (s *sink) Via(c relay.Charge) relay.Via {
	return relay.Via{Device: "sink/" + s.device, Key: "installation" + s.device + ":" + c.ChargeID}
}

func (s *sink) Dedupe(device string) (relay.Dedupe, bool) {
	if device == "sink/claiming" {
		return relay.Claiming, true
	}
	return s.dedupe, strings.HasPrefix(device, "sink/")
}

func (s *sink) Post(_ context.Context, c relay.Charge) relay.Answer {
	s.mu.Lock()
	s.posts = append(s.posts, c)
	n := len(s.posts)
	s.mu.Unlock()
	return s.answer(n, c)
}

func (s *sink) CreateCustomer(_ context.Context, team string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = append(s.created, team)
	return s.noCreate
}

func (s *sink) Sight(context.Context, string) (relay.Sighting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == "" {
		return relay.Sighting{}, fault.Errorf(fault.NotFound, "none")
	}
	return relay.Sighting{Used: s.used, Signed: "0", Since: s.since}, nil
}

func (s *sink) Held(context.Context, relay.Charge) (money.NanoUSD, bool, error) {
	return s.held, s.held > 0, nil
}
func (s *sink) Buy(_ context.Context, t relay.TopUp) relay.Purchase { return s.buy(t) }

func (s *sink) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.posts)
}

// stand is a relay between a book and a sink, on a clock.
type stand struct {
	*relay.Service
	book  *relaytest.Book
	clock *relaytest.Clock
	sink  *sink
}

func newStand(s *sink, concurrency int, ids ...string) *stand {
	st := &stand{sink: s, clock: relaytest.NewClock()}
	st.book = relaytest.New(st.clock.Now)
	for _, id := range ids {
		st.book.Add(id, "team of "+id, 2, money.Credit)
	}
	st.Service = relay.New(st.book, s, relay.Options{
		Worker: "test", Concurrency: concurrency, Now: st.clock.Now, Jitter: func(d time.Duration) time.Duration { return d },
	})
	return st
}

func applied(int, relay.Charge) relay.Answer {
	return relay.Answer{Status: 200, Says: true, Deducted: 1_000_000, HasBalance: true, Balance: "9"}
}

func says(status int, code string) func(int, relay.Charge) relay.Answer {
	return func(int, relay.Charge) relay.Answer {
		return relay.Answer{Status: status, Code: code, Feature: "credits"}
	}
}

func names(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint("c", i))
	}
	return ids
}

func TestDeliverPostsAllThatIsDue(t *testing.T) {
	t.Parallel()
	st := newStand(&sink{answer: applied}, 4, names(10)...)
	p, err := st.Deliver(t.Context())
	if err != nil || p != (relay.Pass{Attempts: 10, Applied: 10}) {
		t.Errorf("Deliver = %+v, %v, want 10 attempts, 10 applied", p, err)
	}
	if c := st.book.Charge("c7"); c.State != relaytest.Posted || c.Proof != relay.ProofDeductions || c.Sends != 1 {
		t.Errorf("c7 = %+v, want it posted by its deductions, and marked as sent once", c)
	}
	if got := st.Stats(); got.Outcomes[relay.Applied] != 10 || got.LastPassAt.IsZero() || got.LastError != "" || !got.SinkConfigured {
		t.Errorf("Stats = %+v", got)
	}
}

// A slow team takes one place, and a failing one its turns: everybody else is
// done before the slow one has its answer.
func TestASlowOrFailingTeamDelaysNoOther(t *testing.T) {
	t.Parallel()
	release, others := make(chan struct{}), make(chan struct{})
	var left sync.WaitGroup
	left.Add(20)
	s := &sink{answer: func(n int, c relay.Charge) relay.Answer {
		switch c.TeamID {
		case "team of c0":
			<-release
		case "team of c1":
			return relay.Answer{Status: 500, Code: "internal_error"}
		default:
			left.Done()
		}
		return applied(n, c)
	}}
	st := newStand(s, 2, names(22)...)
	go func() { left.Wait(); close(others) }()
	done := make(chan error)
	go func() { _, err := st.Deliver(t.Context()); done <- err }()
	select {
	case <-others: // while c0 still waits for its answer
	case err := <-done:
		t.Fatalf("Deliver = %v before the slow team was answered", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("Deliver = %v", err)
	}
	if c := st.book.Charge("c1"); c.State != relaytest.Ambiguous || c.Attempts != 1 {
		t.Errorf("the failing team's charge = %+v, want it waiting after one attempt", c)
	}
}

func TestWithoutAKeyNothingIsLeased(t *testing.T) {
	t.Parallel()
	st := newStand(&sink{none: true, answer: applied}, 4, "a")
	if p, err := st.Deliver(t.Context()); err != nil || p != (relay.Pass{}) || st.book.Charge("a").Attempts != 0 {
		t.Errorf("Deliver = %+v, %v, want nothing done", p, err)
	}
	if _, err := st.SinkBalance(t.Context(), "acme"); fault.KindOf(err) != fault.Precondition {
		t.Errorf("SinkBalance = %v, want Precondition", err)
	}
	st.sink.none = false // the key has come
	if p, err := st.Deliver(t.Context()); err != nil || p.Applied != 1 {
		t.Errorf("Deliver with a key = %+v, %v, want the charge applied", p, err)
	}
}

func TestRefusedCredentialsStopEverythingAndAlarm(t *testing.T) {
	t.Parallel()
	s := &sink{answer: says(401, "invalid_secret_key")}
	st := newStand(s, 1, names(6)...)
	_, err := st.Deliver(t.Context())
	if fault.KindOf(err) != fault.Precondition || s.sent() != 1 {
		t.Errorf("Deliver = %v after %d posts, want it to stop after one", err, s.sent())
	}
	got := st.Stats()
	if got.HaltReason == "" || got.HaltedAt.IsZero() || st.book.Charge("c1").Attempts != 0 {
		t.Errorf("Stats = %+v, want the reason and since when", got)
	}
	if _, err := st.Deliver(t.Context()); fault.KindOf(err) != fault.Precondition || s.sent() != 1 {
		t.Errorf("at once again: %v after %d posts, want none", err, s.sent())
	}
	if _, err := st.Reconcile(t.Context(), nil); fault.KindOf(err) != fault.Precondition {
		t.Errorf("Reconcile = %v, want nothing read", err)
	}
	s.answer = applied
	st.clock.Advance(time.Minute)
	if p, err := st.Deliver(t.Context()); err != nil || p.Applied != 6 || st.Stats().HaltReason != "" {
		t.Errorf("with the right key again: %+v, %v, want all applied", p, err)
	}
}

func TestTheWrongEnvironmentLeasesNothing(t *testing.T) {
	t.Parallel()
	st := newStand(&sink{notReady: fault.Errorf(fault.Precondition, "wrong environment")}, 4, "a")
	if _, err := st.Deliver(t.Context()); fault.KindOf(err) != fault.Precondition || st.book.Charge("a").Attempts != 0 {
		t.Errorf("Deliver = %v, want Precondition and nothing leased", err)
	}
	if got := st.Stats(); got.LastError != "wrong environment" || got.HaltReason != "wrong environment" {
		t.Errorf("Stats = %+v", got)
	}
}

func TestASinkThatIsIllIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := &sink{answer: says(500, "internal_error")}
	st := newStand(s, 10, names(100)...)
	_, err := st.Deliver(t.Context())
	if fault.KindOf(err) != fault.Unavailable || s.sent() > 30 || st.Stats().BreakerOpenUntil.IsZero() {
		t.Errorf("Deliver = %v after %d posts, want it to leave the sink alone", err, s.sent())
	}
	before := s.sent()
	st.clock.Advance(3 * time.Second)
	if _, err := st.Deliver(t.Context()); fault.KindOf(err) != fault.Unavailable || s.sent() != before+1 {
		t.Errorf("Deliver = %v after %d more posts, want one probe", err, s.sent()-before)
	}
	s.answer = func(n int, c relay.Charge) relay.Answer { return applied(n, c) }
	st.clock.Advance(time.Hour)
	if p, err := st.Deliver(t.Context()); err != nil || p.Applied != 100 {
		t.Errorf("Deliver of a well sink = %+v, %v, want all applied", p, err)
	}
}

func TestAMissingCustomerIsCreatedOnceAPass(t *testing.T) {
	t.Parallel()
	s := &sink{answer: says(404, relay.CodeNoCustomer)}
	st := newStand(s, 4, "a")
	p, err := st.Deliver(t.Context())
	if err != nil || p.Attempts != 2 {
		t.Errorf("Deliver = %+v, %v, want a second attempt at once and no third", p, err)
	}
	if diff := cmp.Diff([]string{"team of a"}, s.created); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if got := st.book.Charge("a").DueAt; !got.Equal(st.clock.Now().Add(4 * time.Second)) {
		t.Errorf("due at %s, want in 4 s", got)
	}
}

func TestRetriesGoOnForDays(t *testing.T) {
	t.Parallel()
	s := &sink{answer: says(503, relay.CodeNotAvailable)}
	st := newStand(s, 4, "a")
	for range 3 * 24 * 12 { // three days
		_, _ = st.Deliver(t.Context())
		st.clock.Advance(5 * time.Minute)
	}
	if c := st.book.Charge("a"); c.State != relaytest.Pending || c.Attempts < 800 {
		t.Errorf("after three days the charge is %s after %d attempts, want it pending", c.State, c.Attempts)
	}
	s.answer = applied
	if p, err := st.Deliver(t.Context()); err != nil || p.Applied != 1 {
		t.Errorf("Deliver = %+v, %v, want it applied", p, err)
	}
}

func TestAnAmountThatAutumnCannotHoldIsRefused(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied}
	st := newStand(s, 4)
	st.book.Add("a", "acme", 2, 15)
	if _, err := st.Deliver(t.Context()); err != nil || st.book.Charge("a").State != relaytest.Dead || s.sent() != 0 {
		t.Errorf("Deliver: %v, want it refused unsent", err)
	}
}

// broken is a book whose way to us is.
type broken struct {
	*relaytest.Book
	mark, settle error
}

func (b broken) MarkSent(ctx context.Context, id string, token int64, via relay.Via) error {
	return errors.Join(b.Book.MarkSent(ctx, id, token, via), b.mark)
}

func (b broken) Settle(ctx context.Context, s relay.Settlement) error {
	return errors.Join(b.settle, b.Book.Settle(ctx, s))
}

// What went wrong with a first charge could never be found if its team's usage was
// not read before: not even when the customer is made by a request whose answer is
// lost, or gets its plan only after an attempt.
func TestAFirstChargeIsNotSentBeforeTheUsageIsKnown(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied, noCreate: errors.New("no answer in time")}
	st := newStand(s, 4, "a")
	st.book.Change("a", func(c *relaytest.Charge) { c.Seq = 1 })
	_, _ = st.Deliver(t.Context())
	if c := st.book.Charge("a"); s.sent() != 0 || c.State != relaytest.Pending {
		t.Errorf("charge = %s after %d posts, want none without a customer", c.State, s.sent())
	}
	s.noCreate = nil
	s.answer = func(int, relay.Charge) relay.Answer { return relay.Answer{Status: 200, Says: true, NullBalance: true} }
	st.clock.Advance(5 * time.Minute)
	_, _ = st.Deliver(t.Context())
	if s.sent() != 1 {
		t.Fatalf("%d posts, want one that finds no plan", s.sent())
	}
	s.used = "10"
	s.answer = func(n int, c relay.Charge) relay.Answer {
		s.mu.Lock()
		s.used = "11"
		s.mu.Unlock()
		return applied(n, c)
	}
	st.clock.Advance(5 * time.Minute)
	_, _ = st.Deliver(t.Context())
	var base money.NanoUSD
	for _, f := range st.book.Findings {
		if f.Class == "baseline" {
			base = f.Used
		}
	}
	if c := st.book.Charge("a"); c.State != relaytest.Posted || base != 10*money.Credit {
		t.Errorf("charge = %s (%s), the books begin with %s, want it posted and them to begin with 10 credits", c.State, c.LastError, base.Credits())
	}
}

func TestNothingIsSentThatBillingDoesNotKnowToBeSent(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied}
	st := newStand(s, 4, "a")
	for _, err := range []error{fault.Errorf(fault.Conflict, "no longer leased"), fault.Errorf(fault.Unavailable, "billing is down")} {
		svc := relay.New(broken{Book: st.book, mark: err}, s, relay.Options{Worker: "test", Concurrency: 1, Now: st.clock.Now})
		_, _ = svc.Deliver(t.Context())
		st.clock.Advance(time.Hour)
	}
	if s.sent() != 0 {
		t.Errorf("%d posts, want none", s.sent())
	}
}

func TestAnOutcomeThatIsNotRecordedMakesTheChargeAmbiguous(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied}
	st := newStand(s, 4, "a")
	svc := relay.New(broken{Book: relaytest.New(st.clock.Now), settle: fault.Errorf(fault.Unavailable, "billing is down")}, s, relay.Options{Concurrency: 1, Now: st.clock.Now})
	if _, err := svc.Deliver(t.Context()); err != nil {
		t.Fatal(err) // nothing was due there
	}
	lost := &deaf{Book: st.book}
	svc = relay.New(lost, s, relay.Options{Concurrency: 1, Now: st.clock.Now})
	if _, err := svc.Deliver(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Deliver = %v, want Unavailable", err)
	}
	s.answer = says(409, relay.CodeLockExists)
	st.clock.Advance(2 * time.Minute) // the lease has run out
	_, _ = st.Deliver(t.Context())
	if c := st.book.Charge("a"); c.State != relaytest.Posted || c.Proof != relay.ProofLock {
		t.Errorf("charge = %+v, want it posted by the lock", c)
	}
}

// deaf is a book that never hears of an outcome.
type deaf struct{ *relaytest.Book }

func (deaf) Settle(context.Context, relay.Settlement) error {
	return fault.Errorf(fault.Unavailable, "billing is down")
}

func TestAPostUnderWayIsSettledAfterShutdown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := &sink{answer: func(n int, c relay.Charge) relay.Answer { cancel(); return applied(n, c) }}
	st := newStand(s, 1, "a", "b")
	if _, err := st.Deliver(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Deliver = %v, want canceled", err)
	}
	if got := st.book.Charge("a").State; got != relaytest.Posted || s.sent() != 1 {
		t.Errorf("a is %s after %d posts, want it posted and nothing else sent", got, s.sent())
	}
}

func TestAPausedTeamIsNotPosted(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied}
	st := newStand(s, 4, "a", "b")
	if err := st.Pause(t.Context(), relay.Pause{TeamID: "team of a", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	if p, err := st.Deliver(t.Context()); err != nil || p.Applied != 1 || st.book.Charge("a").Attempts != 0 {
		t.Errorf("Deliver = %+v, %v, want b alone", p, err)
	}
	if was, err := st.Resume(t.Context(), relay.Pause{TeamID: "team of a"}); err != nil || !was {
		t.Errorf("Resume = %t, %v", was, err)
	}
	if p, err := st.Deliver(t.Context()); err != nil || p.Applied != 1 {
		t.Errorf("Deliver = %+v, %v, want a", p, err)
	}
}
