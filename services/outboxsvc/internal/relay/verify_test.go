package relay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
)

func TestALockThatNobodyOfUsTookIsNoProof(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, used string // usage at the sink when it is verified
		want       relaytest.State
		rounds     int
	}{
		{"usage does not hold it: it is sent under another key", "10", relaytest.Pending, 2},
		{"usage holds it: it is applied after all", "11", relaytest.Posted, 1},
		{"usage does not tell: it stays in doubt", "12.7", relaytest.Ambiguous, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := &sink{answer: says(409, relay.CodeLockExists), used: "10"}
			st := newStand(s, 4, "a")
			if _, err := st.Reconcile(t.Context(), nil); err != nil { // the books begin
				t.Fatal(err)
			}
			st.clock.Advance(time.Minute)
			s.used = row.used
			if _, err := st.Deliver(t.Context()); err != nil && row.want != relaytest.Pending {
				t.Fatal(err)
			}
			if c := st.book.Charge("a"); c.State != row.want && row.want != relaytest.Pending || c.KeyRound < row.rounds {
				t.Errorf("charge = %s, round %d (%s), want %s, round %d", c.State, c.KeyRound, c.LastError, row.want, row.rounds)
			}
			if row.want == relaytest.Ambiguous {
				st.clock.Advance(5 * time.Minute)
				_, _ = st.Deliver(t.Context())
				if s.sent() != 1 {
					t.Errorf("it was sent again: the next answer would look like a proof")
				}
			}
		})
	}
}

func TestAnAttemptThatMayHaveBeenAppliedMakesALockAProof(t *testing.T) {
	t.Parallel()
	s := &sink{answer: func(n int, _ relay.Charge) relay.Answer {
		if n == 1 {
			return relay.Answer{Failure: "no answer in time"}
		}
		return relay.Answer{Status: 409, Code: relay.CodeLockExists}
	}}
	st := newStand(s, 4, "a")
	_, _ = st.Deliver(t.Context())
	st.clock.Advance(time.Minute)
	_, _ = st.Deliver(t.Context())
	if c := st.book.Charge("a"); c.State != relaytest.Posted || c.Proof != relay.ProofLock {
		t.Errorf("charge = %+v, want it posted by the lock", c)
	}
	if diff := cmp.Diff([]string{"team of a"}, st.book.Nudges); diff != "" {
		t.Errorf("the team is to be read (-want +got):\n%s", diff)
	}
}

func TestALockWhoseEventShowsAPartIsAShortfall(t *testing.T) {
	t.Parallel()
	s := &sink{answer: says(409, relay.CodeLockExists), held: money.Credit / 4}
	st := newStand(s, 4, "a")
	st.book.Change("a", func(c *relaytest.Charge) { c.Unsure, c.FirstSentAt = true, st.clock.Now() })
	_, _ = st.Deliver(t.Context())
	if c := st.book.Charge("a"); c.State != relaytest.Short || c.Shortfall != money.Credit*3/4 {
		t.Errorf("charge = %s with a shortfall of %s, want three quarters short", c.State, c.Shortfall)
	}
}

func TestAChargeInDoubtIsNotSentAgainBeyondTheLifeOfItsKey(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, used string
		sent       int
		want       relaytest.State
	}{
		{"its usage is there: applied", "11", 0, relaytest.Posted},
		{"it is not: it starts anew", "10", 1, relaytest.Posted},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := &sink{answer: applied, used: "10"}
			st := newStand(s, 4, "a")
			if _, err := st.Reconcile(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			st.book.Change("a", func(c *relaytest.Charge) {
				c.Unsure, c.State, c.FirstSentAt = true, relaytest.Ambiguous, st.clock.Now().Add(time.Second)
				c.DueAt = st.clock.Now().Add(20*time.Hour + 2*time.Second)
			})
			s.used = row.used
			st.clock.Advance(20*time.Hour + 2*time.Second)
			_, _ = st.Deliver(t.Context())
			if s.sent() != 0 {
				t.Fatal("it was sent again without being verified")
			}
			for range 4 {
				st.clock.Advance(5 * time.Minute)
				_, _ = st.Deliver(t.Context())
			}
			if c := st.book.Charge("a"); c.State != row.want || s.sent() != row.sent {
				t.Errorf("charge = %s (%s) after %d posts, want %s after %d", c.State, c.LastError, s.sent(), row.want, row.sent)
			}
		})
	}
}

func TestADoubtThatANewCycleHidesIsForAHuman(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied, used: "0"}
	st := newStand(s, 4, "a")
	st.book.Change("a", func(c *relaytest.Charge) {
		c.Unsure, c.State, c.FirstSentAt, c.DueAt = true, relaytest.Ambiguous, st.clock.Now(), st.clock.Now().Add(21*time.Hour)
	})
	st.clock.Advance(21 * time.Hour)
	if _, err := st.Reconcile(t.Context(), nil); err != nil { // the books begin after it was sent
		t.Fatal(err)
	}
	for range 5 {
		_, _ = st.Deliver(t.Context())
		st.clock.Advance(5 * time.Minute)
	}
	if c := st.book.Charge("a"); c.State != relaytest.Dead || !strings.Contains(c.LastError, "verified by hand") || s.sent() != 0 {
		t.Errorf("charge = %s (%s) after %d posts, want it dead for a human", c.State, c.LastError, s.sent())
	}
}

// A charge that clashed is not requeued into a proof: only a human who has looked
// lets it be sent again, and under another key.
func TestAChargeThatClashedIsVerifiedAlsoWhenItIsRequeued(t *testing.T) {
	t.Parallel()
	s := &sink{answer: says(409, relay.CodeLockExists), used: "0"}
	st := newStand(s, 4, "a")
	clashed := "unproved: 409 lock_already_exists"
	st.book.Change("a", func(c *relaytest.Charge) {
		c.Unsure, c.State, c.LastError, c.FirstSentAt = true, relaytest.Ambiguous, clashed, st.clock.Now()
	})
	st.clock.Advance(time.Minute)
	if _, err := st.Reconcile(t.Context(), nil); err != nil { // the books begin after it was sent
		t.Fatal(err)
	}
	deliver := func() {
		for range 3 {
			_, _ = st.Deliver(t.Context())
			st.clock.Advance(5 * time.Minute)
		}
	}
	deliver()
	for range 2 {
		c := st.book.Charge("a")
		if c.State != relaytest.Dead || !strings.Contains(c.LastError, "verified by hand") || s.sent() != 0 {
			t.Fatalf("charge = %s (%s) after %d posts, want it dead for a human", c.State, c.LastError, s.sent())
		}
		if _, err := st.book.Requeue(t.Context(), relay.Requeue{ChargeIDs: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		deliver()
	}
	if _, err := st.book.Requeue(t.Context(), relay.Requeue{ChargeIDs: []string{"a"}, Verified: true}); err != nil {
		t.Fatal(err)
	}
	s.answer = applied
	deliver()
	if c := st.book.Charge("a"); c.State != relaytest.Posted || c.KeyRound == 1 {
		t.Errorf("charge = %s under key round %d, want it posted under another key than the first", c.State, c.KeyRound)
	}
}

// A new customer has used nothing, whatever was taken from the one before.
func TestACustomerThatWasMadeAnewProvesNothing(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied, used: "0", dedupe: relay.Claiming}
	st := newStand(s, 4, "a")
	s.since = st.clock.Now()
	if _, err := st.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	st.clock.Advance(time.Hour)
	st.book.Change("a", func(c *relaytest.Charge) {
		c.Unsure, c.State, c.FirstSentAt = true, relaytest.Ambiguous, st.clock.Now()
	})
	s.since = st.clock.Now().Add(2 * time.Minute)
	for range 5 {
		_, _ = st.Deliver(t.Context())
		st.clock.Advance(5 * time.Minute)
	}
	if c := st.book.Charge("a"); c.State != relaytest.Dead || !strings.Contains(c.LastError, "made anew") || s.sent() != 0 {
		t.Errorf("charge = %s (%s) after %d posts, want it dead for a human", c.State, c.LastError, s.sent())
	}
}

// A sink that shows no balance, as Stripe's meters are, can never tell of a charge
// that its id has outlived. A human is called, and what he says holds.
func TestADoubtThatTheSinkCannotTellIsCountedUntilItIsResolved(t *testing.T) {
	t.Parallel()
	s := &sink{answer: applied}
	st := newStand(s, 4, "a")
	st.book.Change("a", func(c *relaytest.Charge) {
		c.Unsure, c.State, c.FirstSentAt, c.DueAt = true, relaytest.Ambiguous, st.clock.Now(), st.clock.Now().Add(21*time.Hour)
	})
	st.clock.Advance(21 * time.Hour)
	for range 5 {
		_, _ = st.Deliver(t.Context())
		st.clock.Advance(5 * time.Minute)
	}
	if c := st.book.Charge("a"); c.State != relaytest.Ambiguous || s.sent() != 0 || st.Stats().Undecided != 1 {
		t.Errorf("charge = %s after %d posts, %d undecided, want it in doubt and counted", c.State, s.sent(), st.Stats().Undecided)
	}
	other := relay.New(st.book, s, relay.Options{Worker: "other", Concurrency: 1, Now: st.clock.Now})
	if _, err := other.Deliver(t.Context()); err != nil || other.Stats().Undecided != 1 {
		t.Errorf("another replica: %v, %d undecided, want 1: it is in the books", err, other.Stats().Undecided)
	}
	if _, err := st.Resolve(t.Context(), relay.Resolve{ChargeID: "a", Applied: true, DryRun: true}); err != nil || st.Stats().Undecided != 1 {
		t.Errorf("a dry run: %v, %d undecided, want 1", err, st.Stats().Undecided)
	}
	if _, err := st.Resolve(t.Context(), relay.Resolve{ChargeID: "a", Applied: true}); err != nil {
		t.Fatal(err)
	}
	if c := st.book.Charge("a"); c.State != relaytest.Posted || st.Stats().Undecided != 0 {
		t.Errorf("resolved = %s, %d undecided, want it posted", c.State, st.Stats().Undecided)
	}
	if _, err := other.Deliver(t.Context()); err != nil || other.Stats().Undecided != 0 {
		t.Errorf("another replica: %v, %d undecided, want none any more", err, other.Stats().Undecided)
	}
}
