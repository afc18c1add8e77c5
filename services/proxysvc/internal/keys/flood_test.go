package keys

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// TestAnUnknownKeyIsAskedForOnce repeats a key that is none: keysvc is asked
// once, until something changes there or it is long ago.
func TestAnUnknownKeyIsAskedForOnce(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	})
	key := virtualkey.New()
	want := func(what string, calls int) {
		t.Helper()
		if got := s.verify(key); got != fault.Unauthenticated || s.api.calls() != calls {
			t.Errorf("%s: kind %d with %d calls, want %d", what, got, s.api.calls(), calls)
		}
	}
	want("at first", 1)
	want("again", 1)
	w.send <- &keysv1.WatchKeysResponse{Revision: 6, KeyIds: []string{"key_9"}}
	s.seen(w, 6)
	want("after a change, which may have unblocked it", 2)
	want("again", 2)
	s.pass(unknownFor)
	w.send <- &keysv1.WatchKeysResponse{Revision: 6, Heartbeat: true}
	s.seen(w, 6)
	want("long after", 3)
	s.pass(time.Hour) // the watch is silent: nothing is certain
	want("while the watch is silent", 4)
}

// TestBadKeysCostTheSameLookUps refuses bad keys of each kind twice: the first time
// only one with a right checksum is asked for, the second time none is. What a look-up
// costs is all that could tell them apart by time; the rest, a hash, a map and a
// checksum, is as little as what dev's BenchmarkBadKeys shows.
func TestBadKeysCostTheSameLookUps(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	revoked := virtualkey.New()
	s.expect("a key that is still good", s.verify(revoked), 1)
	w.send <- &keysv1.WatchKeysResponse{Revision: 6, KeyIds: []string{"key_1"}, Stopped: true, Reason: "revoked"}
	s.seen(w, 6)
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) {
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	})
	calls := 1
	for _, kind := range []struct {
		name   string
		key    secret.String
		lookUp int
	}{
		{"missing", secret.New(""), 0},
		{"malformed", secret.New("hello"), 0},
		{"mistyped", secret.New("sk-" + strings.Repeat("a", 49)), 0},
		{"unknown", virtualkey.New(), 1},
		{"revoked", revoked, 1},
	} {
		for _, more := range []int{kind.lookUp, 0, 0} {
			calls += more
			if got := s.verify(kind.key); got != fault.Unauthenticated || s.api.calls() != calls {
				t.Errorf("%s: kind %d with %d look-ups in all, want a refusal with %d", kind.name, got, s.api.calls(), calls)
			}
		}
	}
}

// TestAFloodOfUnknownKeysPushesNoKeyOut asks for many more keys that are none
// than are remembered.
func TestAFloodOfUnknownKeysPushesNoKeyOut(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.watch(5)
	good := virtualkey.New()
	s.expect("at first", s.verify(good), 1)
	for range maxUnknown + 10 {
		s.client.forget(virtualkey.Token(virtualkey.New().Reveal()), 5)
	}
	if n := len(s.client.unknown); n > maxUnknown {
		t.Errorf("%d are remembered", n)
	}
	s.expect("after the flood", s.verify(good), 1)
}
