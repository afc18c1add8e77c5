package keys

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// TestWhatRunsIsVerifiedWhileNobodyTellsOfStops has the watch fall silent while
// keysvc answers questions.
func TestWhatRunsIsVerifiedWhileNobodyTellsOfStops(t *testing.T) {
	t.Parallel()
	s := newStandThatLooks(t, time.Millisecond)
	s.watch(5)
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) {
		switch token {
		case "live":
			return live(token, 6), nil
		case "blocked":
			r := live(token, 6)
			r.Team = &keysv1.Team{TeamId: "late", Status: keysv1.TeamStatus_TEAM_STATUS_BLOCKED}
			return r, nil
		}
		return nil, status.Error(codes.Unauthenticated, "invalid api key")
	})
	s.whenStopped = func() { s.runs() }
	for token, want := range map[string]stopped{
		"revoked": {[]string{"key_2"}, nil, 5, "revoked"},
		"blocked": {nil, []string{"late"}, 5, "blocked"},
	} {
		s.runs(&proxy.Key{KeyID: "key_1", Token: "live", TeamID: "acme"}, &proxy.Key{KeyID: "key_2", Token: token, TeamID: "late"})
		s.pass(time.Minute)
		if diff := cmp.Diff(want, <-s.stops); diff != "" {
			t.Errorf("%s (-want +got):\n%s", token, diff)
		}
	}
}

// TestWhatRunsEndsWithTheWindow has keysvc go away: what runs goes on for the
// window and no longer, and a key's own end is known without keysvc.
func TestWhatRunsEndsWithTheWindow(t *testing.T) {
	t.Parallel()
	s := newStandThatLooks(t, time.Millisecond)
	s.watch(5)
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) { return nil, status.Error(codes.Unavailable, "down") })
	s.whenStopped = func() { s.runs() }
	s.runs(&proxy.Key{KeyID: "key_1", Token: "known"})
	s.pass(59 * time.Minute)
	for before := s.api.calls(); s.api.calls() < before+3; { // two whole looks
		select {
		case got := <-s.stops:
			t.Fatalf("stopped within the window: %+v", got)
		default:
		}
	}
	s.pass(time.Minute)
	if diff := cmp.Diff(stopped{[]string{"key_1"}, nil, 0, "unverified"}, <-s.stops); diff != "" {
		t.Errorf("after the window (-want +got):\n%s", diff)
	}
	s.runs(&proxy.Key{KeyID: "key_2", Token: "short", ExpiresAt: s.clock()})
	if diff := cmp.Diff(stopped{[]string{"key_2"}, nil, 5, "revoked"}, <-s.stops); diff != "" {
		t.Errorf("a key whose life is over (-want +got):\n%s", diff)
	}
}

// TestTheWindowBeginsWhenTheWatchEnds has keysvc go away long after a key was
// asked for: until then the watch has vouched for it.
func TestTheWindowBeginsWhenTheWatchEnds(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	w := s.watch(5)
	known := virtualkey.New()
	s.expect("at first", s.verify(known), 1)
	for range 90 { // an hour and a half
		s.pass(time.Minute)
		w.send <- &keysv1.WatchKeysResponse{Revision: 5, Heartbeat: true}
		s.seen(w, 5)
	}
	s.api.answerWith(func(string) (*keysv1.VerifyKeyResponse, error) { return nil, status.Error(codes.Unavailable, "down") })
	s.pass(59 * time.Minute)
	if got := s.verify(known); got != ok {
		t.Errorf("within the window: %d, want it to work", got)
	}
	s.pass(time.Minute)
	if got := s.verify(known); got != fault.Unavailable {
		t.Errorf("beyond the window: %d, want Unavailable", got)
	}
}
