package keys

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// keysvc is a key service of which a test decides every answer, over a real
// connection.
type keysvc struct {
	keysv1.UnimplementedKeyServiceServer
	mu      sync.Mutex
	answer  func(token string) (*keysv1.VerifyKeyResponse, error)
	asked   int
	watches chan *watch
}

// watch is one open WatchKeys call.
type watch struct {
	after int64
	send  chan *keysv1.WatchKeysResponse
	end   chan error
}

func (k *keysvc) VerifyKey(_ context.Context, r *keysv1.VerifyKeyRequest) (*keysv1.VerifyKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.answer(r.GetToken())
}

func (k *keysvc) calls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *keysvc) answerWith(f func(token string) (*keysv1.VerifyKeyResponse, error)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answer = f
}

func (k *keysvc) WatchKeys(r *keysv1.WatchKeysRequest, stream grpc.ServerStreamingServer[keysv1.WatchKeysResponse]) error {
	w := &watch{after: r.GetAfterRevision(), send: make(chan *keysv1.WatchKeysResponse), end: make(chan error)}
	select {
	case k.watches <- w:
	case <-stream.Context().Done():
		return nil
	}
	for {
		select {
		case m := <-w.send:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-w.end:
			return err
		case <-stream.Context().Done():
			return nil
		}
	}
}

// stopped is one call of the client's stop function.
type stopped struct {
	KeyIDs, TeamIDs []string
	Revision        int64
	Reason          string
}

// stand is a client in front of a keysvc, with a clock that the test moves.
type stand struct {
	t      *testing.T
	api    *keysvc
	client *Client
	stops  chan stopped
	// whenStopped, if set, runs within the client's stop function.
	whenStopped func()
	mu          sync.Mutex
	now         time.Time
	running     []*proxy.Key
}

// From and Stop implement Running.
func (s *stand) From(int64) []*proxy.Key { return s.Keys() }

// Keys implements Running.
func (s *stand) Keys() []*proxy.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *stand) Stop(keyIDs, teamIDs []string, revision int64, reason string) {
	if s.whenStopped != nil && reason != "marker" {
		s.whenStopped()
	}
	s.stops <- stopped{keyIDs, teamIDs, revision, reason}
}

// End implements Running.
func (s *stand) End(keyIDs, teamIDs []string, revision int64, reason string) {
	s.Stop(keyIDs, teamIDs, revision, reason)
}

// runs makes requests run with the keys.
func (s *stand) runs(keys ...*proxy.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = keys
}

func newStand(t *testing.T) *stand {
	t.Helper()
	return newStandThatLooks(t, time.Hour)
}

// newStandThatLooks makes a stand that looks so often at what runs while the watch
// is silent.
func newStandThatLooks(t *testing.T, recheck time.Duration) *stand {
	t.Helper()
	s := &stand{
		t: t, api: &keysvc{watches: make(chan *watch)}, stops: make(chan stopped, 10),
		now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC),
	}
	s.api.answerWith(func(token string) (*keysv1.VerifyKeyResponse, error) { return live(token, 5), nil })
	server := grpc.NewServer()
	keysv1.RegisterKeyServiceServer(server, s.api)
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(lis) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	conn, err := serve.Caller{Token: secret.New("a-service-token")}.Dial(lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.client = New(keysv1.NewKeyServiceClient(conn),
		Settings{Trust: time.Minute, Outage: time.Hour, Timeout: 10 * time.Second, Retry: time.Millisecond, Recheck: recheck},
		s, func(what string, err error) { t.Logf("%s: %v", what, err) })
	s.client.now = s.clock
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.client.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func (s *stand) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *stand) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
}

// watch takes the client's next watch and shows it life at a revision.
func (s *stand) watch(revision int64) *watch {
	w := <-s.api.watches
	w.send <- &keysv1.WatchKeysResponse{Revision: revision, Heartbeat: true}
	<-s.client.Ready()
	s.seen(w, revision)
	return w
}

// seen makes sure that the client has taken everything in that was sent: a stop
// of nothing comes back behind it.
func (s *stand) seen(w *watch, revision int64) {
	w.send <- &keysv1.WatchKeysResponse{Revision: revision, Stopped: true, Reason: "marker"}
	for {
		if got := <-s.stops; got.Reason == "marker" {
			return
		}
	}
}

func (s *stand) verify(key secret.String) fault.Kind {
	s.t.Helper()
	k, err := s.client.Verify(s.t.Context(), key)
	if err != nil {
		return fault.KindOf(err)
	}
	if k.KeyID != "key_1" || k.Token != virtualkey.Token(key.Reveal()) {
		s.t.Errorf("verified as %+v", k)
	}
	return ok
}

const ok = fault.Kind(255)

func live(token string, revision int64) *keysv1.VerifyKeyResponse {
	return &keysv1.VerifyKeyResponse{
		Key:      &keysv1.Key{KeyId: "key_1", Token: token, TeamId: "acme"},
		Team:     &keysv1.Team{TeamId: "acme", Status: keysv1.TeamStatus_TEAM_STATUS_ACTIVE},
		Revision: revision,
	}
}

func (s *stand) expect(what string, got fault.Kind, calls int) {
	s.t.Helper()
	if got != ok || s.api.calls() != calls {
		s.t.Errorf("%s: kind %d with %d calls in all, want a live key with %d", what, got, s.api.calls(), calls)
	}
}
