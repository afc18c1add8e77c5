package keys

import (
	"context"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func TestAKeyIsAskedForOnceWhileTheWatchLives(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	key := virtualkey.New()
	s.expect("the first time", s.verify(key), 1)
	s.expect("the second time", s.verify(key), 1)
	w.send <- &keysv1.WatchKeysResponse{Revision: 6, KeyIds: []string{"key_2"}}
	s.seen(w, 6)
	s.expect("after another key's change", s.verify(key), 1)
	w.send <- &keysv1.WatchKeysResponse{Revision: 7, KeyIds: []string{"key_1"}}
	s.seen(w, 7)
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) { return live(token, 7), nil })
	s.expect("after its own change", s.verify(key), 2)
	w.send <- &keysv1.WatchKeysResponse{Revision: 8, TeamIds: []string{"acme"}}
	s.seen(w, 8)
	s.expect("after its team's change", s.verify(key), 3)
	s.pass(2 * time.Minute)
	s.expect("when the watch is silent", s.verify(key), 4)
	s.expect("and again", s.verify(key), 5)
}

// TestAKeyIsTrustedUpToTheLastMoment looks at the bound from both sides.
func TestAKeyIsTrustedUpToTheLastMoment(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	key := virtualkey.New()
	s.expect("at first", s.verify(key), 1)
	s.pass(time.Minute - time.Nanosecond)
	s.expect("just within Trust", s.verify(key), 1)
	s.pass(time.Nanosecond)
	s.expect("at its end", s.verify(key), 2)
	w.send <- &keysv1.WatchKeysResponse{Revision: 5, Heartbeat: true}
	s.seen(w, 5)
	s.expect("after a heartbeat", s.verify(key), 2)
}

// TestWhatWasVerifiedBeforeTheWatchBeganIsVerifiedAgain is about changes between
// a verification and the beginning of the watch, which the watch does not tell.
func TestWhatWasVerifiedBeforeTheWatchBeganIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := virtualkey.New()
	s.expect("before the watch", s.verify(key), 1)
	s.watch(6) // revision 6 may have been this key's
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	})
	if got := s.verify(key); got != fault.Unauthenticated || s.api.calls() != 2 {
		t.Errorf("kind %d with %d calls, want Unauthenticated with 2", got, s.api.calls())
	}
}

// TestWhatRunsWhenTheWatchBeginsIsVerifiedAgain is about stops that were made
// while no watch was open: it begins from now on and does not tell them.
func TestWhatRunsWhenTheWatchBeginsIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.runs(
		&proxy.Key{KeyID: "key_live", Token: "live", TeamID: "acme", Revision: 5},
		&proxy.Key{KeyID: "key_revoked", Token: "revoked", Revision: 5},
		&proxy.Key{KeyID: "key_suspended", Token: "suspended", TeamID: "late", Revision: 5},
	)
	var down atomic.Bool
	down.Store(true)
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) {
		switch {
		case token == "live":
			return live(token, 6), nil
		case token == "suspended" && down.Load():
			return nil, status.Error(codes.Unavailable, "down")
		case token == "suspended":
			r := live(token, 6)
			r.Team = &keysv1.Team{TeamId: "late", Status: keysv1.TeamStatus_TEAM_STATUS_SUSPENDED}
			return r, nil
		default:
			return nil, status.Error(codes.Unauthenticated, "invalid api key")
		}
	})
	w := <-s.api.watches
	w.send <- &keysv1.WatchKeysResponse{Revision: 6, Heartbeat: true}
	revoked := stopped{[]string{"key_revoked"}, nil, 6, "revoked"}
	if diff := cmp.Diff(revoked, <-s.stops); diff != "" {
		t.Errorf("the first try (-want +got):\n%s", diff)
	}
	again := <-s.api.watches // not everything could be asked for
	if again.after != 0 {
		t.Errorf("the watch goes on after %d, want a new beginning", again.after)
	}
	down.Store(false)
	again.send <- &keysv1.WatchKeysResponse{Revision: 6, Heartbeat: true}
	want := []stopped{revoked, {nil, []string{"late"}, 6, "suspended"}}
	if diff := cmp.Diff(want, []stopped{<-s.stops, <-s.stops}); diff != "" {
		t.Errorf("the second try (-want +got):\n%s", diff)
	}
	again.end <- status.Error(codes.Unavailable, "draining")
	calls := s.api.calls()
	third := <-s.api.watches
	third.send <- &keysv1.WatchKeysResponse{Revision: 6, Heartbeat: true}
	s.seen(third, 6)
	if third.after != 6 || s.api.calls() != calls {
		t.Errorf("a watch that goes on after %d asked %d times again, want after 6 and never", third.after, s.api.calls()-calls)
	}
}

// TestAnAnswerThatCrossesItsChangeIsNotKept lets answers from before a change
// arrive while the change is taken in.
func TestAnAnswerThatCrossesItsChangeIsNotKept(t *testing.T) {
	t.Parallel()
	for range 50 {
		c := New(nil, Settings{}, nil, nil)
		c.revision = 5
		var (
			answers  sync.WaitGroup
			begun    sync.WaitGroup
			applied  atomic.Bool
			remember = func(token string) { c.remember(token, &proxy.Key{KeyID: "key_1", Revision: 5}) }
		)
		for i := range 3 {
			begun.Add(1)
			answers.Go(func() {
				remember(strconv.Itoa(i))
				begun.Done()
				for !applied.Load() {
					remember(strconv.Itoa(i))
				}
			})
		}
		begun.Wait()
		c.apply(&keysv1.WatchKeysResponse{Revision: 6, KeyIds: []string{"key_1"}}, false)
		applied.Store(true)
		answers.Wait()
		for token := range c.byToken {
			if e, _ := c.known(token); e.key != nil {
				t.Fatalf("%+v is known after the change of revision 6", e.key)
			}
		}
	}
}

func TestWhatWasReadBeforeANewerChangeIsNotKept(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.watch(6) // newer than the answers, which are of revision 5
	key := virtualkey.New()
	s.expect("the first time", s.verify(key), 1)
	s.expect("the second time", s.verify(key), 2)
}

func TestGarbageIsRefusedWithoutACall(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	changed := []byte(virtualkey.New().Reveal())
	changed[10] ^= 1
	for _, text := range []string{"", "sk-", "sk-ant-api03-x", string(changed)} {
		if got := s.verify(secret.New(text)); got != fault.Unauthenticated {
			t.Errorf("kind %d, want Unauthenticated", got)
		}
	}
	if n := s.api.calls(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestStopsArePassedOnAfterTheKeyIsForgotten(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	key := virtualkey.New()
	s.expect("at first", s.verify(key), 1)
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	})
	s.whenStopped = func() {
		if e, _ := s.client.known(virtualkey.Token(key.Reveal())); e.key != nil {
			t.Error("the key is stopped before it is forgotten: its next request would run")
		}
	}
	w.send <- &keysv1.WatchKeysResponse{Revision: 9, KeyIds: []string{"key_1"}, TeamIds: []string{"acme"}, Stopped: true, Reason: "revoked"}
	got := <-s.stops
	if diff := cmp.Diff(stopped{[]string{"key_1"}, []string{"acme"}, 9, "revoked"}, got); diff != "" {
		t.Errorf("stop (-want +got):\n%s", diff)
	}
	w.send <- &keysv1.WatchKeysResponse{Revision: 10, TeamIds: []string{"acme"}, Stopped: true, Reason: "exhausted"}
	w.send <- &keysv1.WatchKeysResponse{Revision: 11, KeyIds: []string{"key_2"}}
	w.send <- &keysv1.WatchKeysResponse{Revision: 12, KeyIds: []string{"key_3"}, Stopped: true, Reason: "blocked"}
	if diff := cmp.Diff([]stopped{{nil, []string{"acme"}, 10, "exhausted"}, {[]string{"key_3"}, nil, 12, "blocked"}}, []stopped{<-s.stops, <-s.stops}); diff != "" {
		t.Errorf("later stops, in order (-want +got):\n%s", diff)
	}
	if kind := s.verify(key); kind != fault.Unauthenticated {
		t.Errorf("once stop was called the key is %d, want Unauthenticated", kind)
	}
}

func TestKeysvcDownIsNeverABadKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.watch(5)
	known := virtualkey.New()
	s.expect("at first", s.verify(known), 1)
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) { return nil, status.Error(codes.Unavailable, "down") })
	s.pass(30 * time.Minute)
	if got := s.verify(known); got != ok {
		t.Errorf("a known key within the window: %d, want it to work", got)
	}
	if got := s.verify(virtualkey.New()); got != fault.Unavailable {
		t.Errorf("an unknown key: %d, want Unavailable", got)
	}
	s.pass(31 * time.Minute)
	if got := s.verify(known); got != fault.Unavailable {
		t.Errorf("a known key beyond the window: %d, want Unavailable", got)
	}
}

// TestARefusedServiceTokenIsNotABadKey has keysvc refuse us, not the key: after a
// rotation of the service token that reached only keysvc, no sandbox may be told
// that its key is dead.
func TestARefusedServiceTokenIsNotABadKey(t *testing.T) {
	t.Parallel()
	cfg := serve.Config{
		Name: "keysvc", GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", Drain: 10 * time.Second, DrainWait: time.Millisecond,
		Tokens: []serve.Token{{Actor: "service", Secret: secret.New("the-new-service-token")}}, LogTo: io.Discard,
	}
	srv, err := serve.New(cfg, serve.Options{Log: serve.Logger(cfg), Registry: serve.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	api := &keysvc{}
	api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) { return live(token, 5), nil })
	keysv1.RegisterKeyServiceServer(srv.GRPC(), api)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	connect := func(token string) keysv1.KeyServiceClient {
		conn, err := serve.Caller{Token: secret.New(token)}.Dial(srv.GRPCAddr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return keysv1.NewKeyServiceClient(conn)
	}
	c := New(connect("the-new-service-token"), Settings{Outage: time.Hour, Timeout: 10 * time.Second}, nil, nil)
	known := virtualkey.New()
	if _, err := c.Verify(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	c.api = connect("the-old-service-token")
	if _, err := c.Verify(t.Context(), known); err != nil {
		t.Errorf("a known key: %v, want it to work", err)
	}
	if _, err := c.Verify(t.Context(), virtualkey.New()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("an unknown key: %v, want Unavailable", err)
	}
}

func TestAnOutageEndsWithTheFirstAnswer(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.watch(5)
	key := virtualkey.New()
	s.expect("at first", s.verify(key), 1)
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	})
	s.pass(2 * time.Minute)
	if got := s.verify(key); got != fault.Unauthenticated {
		t.Errorf("a key that keysvc knows no more: %d, want Unauthenticated", got)
	}
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) { return nil, status.Error(codes.Unavailable, "down") })
	if got := s.verify(key); got != fault.Unavailable {
		t.Errorf("the same key in an outage: %d, want Unavailable, since it was forgotten", got)
	}
}

func TestTheWatchGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	w.send <- &keysv1.WatchKeysResponse{Revision: 11, KeyIds: []string{"key_9"}}
	s.seen(w, 11)
	w.end <- status.Error(codes.Unavailable, "draining")
	again := <-s.api.watches
	if again.after != 11 {
		t.Errorf("the watch goes on after %d, want 11", again.after)
	}
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) { return live(token, 11), nil })
	key := virtualkey.New()
	s.expect("while it is broken for less than Trust", s.verify(key), 1)
	again.send <- &keysv1.WatchKeysResponse{Revision: 11, Heartbeat: true}
	s.seen(again, 11)
	s.expect("after it goes on", s.verify(key), 1)
	// What happened while it was broken comes now.
	again.send <- &keysv1.WatchKeysResponse{Revision: 12, KeyIds: []string{"key_1"}, Stopped: true, Reason: "revoked"}
	if got := <-s.stops; got.Revision != 12 || got.Reason != "revoked" {
		t.Errorf("stop %+v, want the one of revision 12", got)
	}
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) { return live(token, 12), nil })
	s.expect("after the change", s.verify(key), 2)
}

// TestARestoredDatabaseIsBelieved has keysvc say that it has never seen the
// revision that we have.
func TestARestoredDatabaseIsBelieved(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	key := virtualkey.New()
	s.expect("at first", s.verify(key), 1)
	w.end <- status.Error(codes.FailedPrecondition, "revision 5 is above the newest one")
	again := <-s.api.watches
	if again.after != 0 {
		t.Errorf("the watch goes on after %d, want 0", again.after)
	}
	again.send <- &keysv1.WatchKeysResponse{Revision: 2, Heartbeat: true}
	s.seen(again, 2)
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) { return live(token, 2), nil })
	s.expect("after the restoration", s.verify(key), 2)
	s.expect("and then from memory", s.verify(key), 2)
	again.end <- status.Error(codes.Unavailable, "draining")
	if third := <-s.api.watches; third.after != 2 {
		t.Errorf("the watch goes on after %d, want 2", third.after)
	}
}

// TestNothingIsTrustedBetweenARestorationAndTheNewWatch also has keysvc down.
func TestNothingIsTrustedBetweenARestorationAndTheNewWatch(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	key := virtualkey.New()
	s.expect("at first", s.verify(key), 1)
	w.end <- status.Error(codes.FailedPrecondition, "revision 5 is above the newest one")
	<-s.api.watches // it was opened again and is silent
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) { return nil, status.Error(codes.Unavailable, "down") })
	if got := s.verify(key); got != fault.Unavailable {
		t.Errorf("a key of before: %d, want Unavailable, since it was forgotten", got)
	}
}

func TestAGateThatIsNotKnownIsClosed(t *testing.T) {
	t.Parallel()
	r := live("t", 1)
	r.Team.Status = keysv1.TeamStatus(99)
	if got := (Settings{}).fromWire(r).Gate.Status; got == "" || got == "active" {
		t.Errorf("a status of a newer version is %q", got)
	}
}
