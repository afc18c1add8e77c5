package litellm_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/litellm"
)

const master = "sk-master-canary-1234"

var noon = timestamppb.New(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))

// keysvc is a small key service in memory, reached over a real connection. It
// keeps what it was last asked.
type keysvc struct {
	keysv1.UnimplementedKeyServiceServer
	mu      sync.Mutex
	keys    []*keysv1.Key
	created *keysv1.CreateKeyRequest
	revoked *keysv1.RevokeKeysRequest
	teams   teamsvc
}

// teamsvc is its other half.
type teamsvc struct {
	keysv1.UnimplementedTeamServiceServer
	mu      sync.Mutex
	byID    map[string]*keysv1.Team
	ensured []*keysv1.EnsureTeamRequest
}

func (k *keysvc) CreateKey(_ context.Context, r *keysv1.CreateKeyRequest) (*keysv1.CreateKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.created = r
	if k.index(func(have *keysv1.Key) bool { return r.GetKeyAlias() != "" && have.GetKeyAlias() == r.GetKeyAlias() }) >= 0 {
		return nil, status.Errorf(codes.AlreadyExists, "Key with alias '%s' already exists. Unique key aliases across all keys are required.", r.GetKeyAlias())
	}
	plain := virtualkey.New()
	key := &keysv1.Key{
		KeyId: "key_" + r.GetKeyAlias(), Token: virtualkey.Token(plain.Reveal()), KeyName: virtualkey.Name(plain), KeyAlias: r.GetKeyAlias(),
		TeamId: r.GetTeamId(), UserId: r.GetUserId(), Models: r.GetModels(), Limits: r.GetLimits(), Metadata: r.GetMetadata(),
		Duration: r.GetDuration(), Tags: r.GetTags(), CreatedAt: noon, UpdatedAt: noon,
	}
	if r.GetDuration() != "" {
		key.ExpiresAt = timestamppb.New(noon.AsTime().Add(24 * time.Hour))
	}
	k.keys = append(k.keys, key)
	return &keysv1.CreateKeyResponse{Key: key, Secret: plain.Reveal()}, nil
}

func (k *keysvc) RevokeKeys(_ context.Context, r *keysv1.RevokeKeysRequest) (*keysv1.RevokeKeysResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked = r
	out := &keysv1.RevokeKeysResponse{}
	for _, key := range k.keys {
		if slices.Contains(r.GetTokens(), key.GetToken()) || slices.Contains(r.GetKeyAliases(), key.GetKeyAlias()) {
			key.RevokedAt = noon
			out.Keys = append(out.Keys, key)
		}
	}
	if len(out.GetKeys()) == 0 {
		return nil, status.Error(codes.NotFound, "none of the keys, sessions and teams that were named exists")
	}
	return out, nil
}

func (k *keysvc) GetKey(_ context.Context, r *keysv1.GetKeyRequest) (*keysv1.GetKeyResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.index(func(have *keysv1.Key) bool { return have.GetToken() == r.GetKeyId() })
	if i < 0 {
		return nil, status.Error(codes.NotFound, "no such key")
	}
	return &keysv1.GetKeyResponse{Key: k.keys[i]}, nil
}

func (k *keysvc) ListKeys(_ context.Context, r *keysv1.ListKeysRequest) (*keysv1.ListKeysResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := &keysv1.ListKeysResponse{}
	for _, key := range k.keys {
		if key.GetTeamId() == r.GetTeamId() && key.GetRevokedAt() == nil {
			out.Keys = append(out.Keys, key)
		}
	}
	return out, nil
}

func (k *keysvc) index(which func(*keysv1.Key) bool) int { return slices.IndexFunc(k.keys, which) }

func (s *teamsvc) EnsureTeam(_ context.Context, r *keysv1.EnsureTeamRequest) (*keysv1.EnsureTeamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ensured = append(s.ensured, r)
	if team, ok := s.byID[r.GetTeamId()]; ok {
		return &keysv1.EnsureTeamResponse{Team: team}, nil
	}
	team := &keysv1.Team{
		TeamId: r.GetTeamId(), TeamAlias: r.GetTeamAlias(), Limits: r.GetLimits(), Models: r.GetModels(), Metadata: r.GetMetadata(),
		Status: keysv1.TeamStatus_TEAM_STATUS_ACTIVE, CreatedAt: noon, UpdatedAt: noon,
	}
	s.byID[r.GetTeamId()] = team
	return &keysv1.EnsureTeamResponse{Team: team, Created: true}, nil
}

func (s *teamsvc) GetTeam(_ context.Context, r *keysv1.GetTeamRequest) (*keysv1.GetTeamResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if team, ok := s.byID[r.GetTeamId()]; ok {
		return &keysv1.GetTeamResponse{Team: team}, nil
	}
	return nil, status.Error(codes.NotFound, "no such team")
}

// accounts is a ledger on which a test writes what was spent.
type accounts struct {
	spent map[ledger.AccountID]money.NanoUSD
	down  bool
}

func (a *accounts) Summary(_ context.Context, id ledger.AccountID) (ledger.Summary, error) {
	if a.down {
		return ledger.Summary{}, errors.New("dial tcp 10.0.0.7:5432: connection refused")
	}
	return ledger.Summary{Spent: a.spent[id]}, nil
}

// stand is the facade on its mux, put together as in services/proxysvc/server.go,
// in front of a key service.
type stand struct {
	t        *testing.T
	keysvc   *keysvc
	stopKeys func()
	accounts *accounts
	addr     string
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{
		t: t, keysvc: &keysvc{teams: teamsvc{byID: map[string]*keysv1.Team{}}},
		accounts: &accounts{spent: map[ledger.AccountID]money.NanoUSD{}},
	}
	conn := s.serveKeys()
	cfg := serve.Config{
		Name: "proxysvc", GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", Drain: 10 * time.Second, DrainWait: time.Millisecond,
		Tokens: []serve.Token{{Actor: "master", Secret: secret.New(master)}}, LogTo: io.Discard,
	}
	srv, err := serve.New(cfg, serve.Options{Log: serve.Logger(cfg), Registry: serve.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = srv.HTTPAddr()
	litellmv1.RegisterLiteLLMServiceServer(srv.GRPC(),
		litellm.New(keysv1.NewKeyServiceClient(conn), keysv1.NewTeamServiceClient(conn), s.accounts))
	facade := serve.NewMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, serve.JSON(true)),
		runtime.WithErrorHandler(litellm.WriteError), runtime.WithRoutingErrorHandler(litellm.WriteRoutingError))
	if err := litellmv1.RegisterLiteLLMServiceHandler(t.Context(), facade, srv.Conn()); err != nil {
		t.Fatal(err)
	}
	srv.Handle(facade)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func (s *stand) serveKeys() *grpc.ClientConn {
	s.t.Helper()
	server := grpc.NewServer()
	keysv1.RegisterKeyServiceServer(server, s.keysvc)
	keysv1.RegisterTeamServiceServer(server, &s.keysvc.teams)
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(lis) }()
	s.stopKeys = sync.OnceFunc(func() {
		server.Stop()
		if err := <-ended; err != nil {
			s.t.Errorf("key service: %v", err)
		}
	})
	s.t.Cleanup(s.stopKeys)
	conn, err := serve.Dial(lis.Addr().String(), secret.New("a-service-token-of-ours"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// in is the stand for a subtest.
func (s *stand) in(t *testing.T) *stand {
	sub := *s
	sub.t = t
	return &sub
}

// send sends a request and returns the status and the JSON of the answer, with
// numbers as they were written.
func (s *stand) send(method, path, token, body string) (int, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		s.t.Errorf("%s %s: content type %q", method, path, got)
	}
	return resp.StatusCode, decode(s.t, resp.Body)
}

func decode(t *testing.T, r io.Reader) map[string]any {
	t.Helper()
	d := json.NewDecoder(r)
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		t.Fatalf("the answer is no JSON object: %v", err)
	}
	return out
}

// must sends a request as an administrator; anything but 200 ends the test.
func (s *stand) must(method, path, body string) map[string]any {
	s.t.Helper()
	code, got := s.send(method, path, master, body)
	if code != http.StatusOK {
		s.t.Fatalf("%s %s %s: %d %v", method, path, body, code, got)
	}
	return got
}

func (s *stand) want(got map[string]any, want string) {
	s.t.Helper()
	if diff := cmp.Diff(decode(s.t, strings.NewReader(want)), got); diff != "" {
		s.t.Errorf("answer (-want +got):\n%s", diff)
	}
}

// refused wants an error in LiteLLM's envelope.
func (s *stand) refused(code int, got map[string]any, wantCode int, want envelope) {
	s.t.Helper()
	diff := cmp.Diff(map[string]any{"error": map[string]any{
		"message": want.message, "type": want.kind, "param": want.param, "code": want.code,
	}}, got)
	if code != wantCode || diff != "" {
		s.t.Errorf("status %d, want %d; answer (-want +got):\n%s", code, wantCode, diff)
	}
}

type envelope struct{ message, kind, param, code string }
