package litellm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/litellm"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/store"
)

const master = "sk-master-canary-1234"

// today is the instant that the facade believes it to be.
var today = time.Date(2026, 5, 15, 12, 0, 0, 0, time.UTC)

// stand is the facade on its mux, put together as in services/proxysvc/server.go,
// with a ledger in Postgres, in front of a key service.
type stand struct {
	t        testing.TB
	keysvc   *keysvc
	stopKeys func()
	db       *pgxpool.Pool
	store    *store.Store
	log      *ledger.Open
	addr     string
}

func newStand(t testing.TB) *stand {
	t.Helper()
	s := &stand{t: t, keysvc: &keysvc{old: map[string]string{}, teams: teamsvc{byID: map[string]*keysv1.Team{}}}}
	s.db = pgtest.New(t, store.Schema, store.Migrations)
	s.store = store.New(s.db)
	if err := s.store.EnsurePartitions(t.Context(), today.AddDate(0, 0, -20), 25); err != nil {
		t.Fatal(err)
	}
	conn := s.serveKeys()
	cfg := serve.Config{
		Name: "proxysvc", GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", Drain: 10 * time.Second, DrainWait: time.Millisecond,
		Tokens: []serve.Token{{Actor: "master", Secret: secret.New(master)}}, LogTo: io.Discard,
	}
	srv, err := serve.New(cfg, serve.Options{Log: serve.Logger(cfg), Registry: serve.NewRegistry(), OwnAuth: litellm.OwnAuth()})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = srv.HTTPAddr()
	api := litellm.New(litellm.Parts{
		Keysvc: conn, Ledger: s.store, Models: models(t),
		Verifier: keys.New(keysv1.NewKeyServiceClient(conn), keys.Settings{Timeout: 5 * time.Second}, nil, nil),
	})
	litellm.SetNow(api, today)
	litellmv1.RegisterLiteLLMServiceServer(srv.GRPC(), api)
	facade := serve.NewMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, serve.JSON(true)),
		runtime.WithErrorHandler(litellm.WriteError), runtime.WithRoutingErrorHandler(litellm.WriteRoutingError))
	if err := litellmv1.RegisterLiteLLMServiceHandler(t.Context(), facade, srv.Conn()); err != nil {
		t.Fatal(err)
	}
	srv.Handle(litellm.Edge(facade, srv.Conn(), cfg.Tokens))
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

// models are two deployments at list price, one at a price of its own and one
// that has none.
func models(t testing.TB) *proxy.Service {
	t.Helper()
	book, err := pricing.Default()
	if err != nil {
		t.Fatal(err)
	}
	own, err := book.Custom("claude-sonnet-5", pricing.Overrides{PerToken: pricing.PerToken{Input: "0.000001", Output: "0.000005"}})
	if err != nil {
		t.Fatal(err)
	}
	deployment := func(id, name, model string) proxy.Deployment {
		return proxy.Deployment{
			ID: id, ModelName: name, Provider: proxy.Anthropic, Model: model, APIBase: "https://internal.example",
			APIKey: secret.New("sk-ant-canary-real"), Weight: 1,
		}
	}
	cheap := deployment("d-2", "cheap", "claude-sonnet-5")
	cheap.Price = own
	return proxy.New(proxy.Parts{Book: book, Router: proxy.NewRouter(proxy.Routing{Deployments: []proxy.Deployment{
		deployment("d-1", "claude-sonnet-5", "claude-sonnet-5"), cheap, deployment("d-3", "mystery", "claude-mystery-9"),
	}})})
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
	conn, err := serve.Caller{Token: secret.New("a-service-token-of-ours")}.Dial(lis.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// spent puts ended requests on the ledger; they get ids and what else a row needs.
func (s *stand) spent(ended ...*ledger.Settlement) {
	s.t.Helper()
	if s.log == nil {
		open, err := s.store.OpenLog(s.t.Context(), "test")
		if err != nil {
			s.t.Fatal(err)
		}
		s.log = &open
	}
	for i, e := range ended {
		if e.RequestID == "" {
			e.RequestID = fmt.Sprintf("req_%d", s.log.LastSeq+int64(i)+1)
		}
		if e.Status == "" {
			e.Status = ledger.Completed
		}
		if e.Model == "" {
			e.Model, e.ModelGroup = "claude-sonnet-5", "claude-sonnet-5"
		}
		e.StartedAt, e.Unadmitted = e.EndedAt.Add(-2*time.Second), true
	}
	err := s.store.Commit(s.t.Context(), &ledger.Batch{
		LogID: s.log.LogID, Number: s.log.Batch + 1, FirstSeq: s.log.LastSeq + 1, Settlements: ended,
		Decide: func(map[ledger.AccountID]*ledger.Account, time.Time) []*ledger.Admission { return nil },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.log.Batch++
	s.log.LastSeq += int64(len(ended))
}

// in is the stand for a subtest.
func (s *stand) in(t *testing.T) *stand {
	sub := *s
	sub.t = t
	return &sub
}

// do sends a request and returns the status and the JSON of the answer, with
// numbers as they were written.
func (s *stand) do(method, path, body string, header http.Header) (int, any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header = header
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

// send sends a request with a token; the answer must be an object.
func (s *stand) send(method, path, token, body string) (int, map[string]any) {
	s.t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	code, got := s.do(method, path, body, header)
	object, ok := got.(map[string]any)
	if !ok {
		s.t.Fatalf("%s %s: %d, no object: %v", method, path, code, got)
	}
	return code, object
}

func decode(t testing.TB, r io.Reader) any {
	t.Helper()
	d := json.NewDecoder(r)
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		t.Fatalf("the answer is no JSON: %v", err)
	}
	return out
}

// get sends a request as an administrator; anything but 200 ends the test.
func (s *stand) get(method, path, body string) any {
	s.t.Helper()
	code, got := s.do(method, path, body, http.Header{"Authorization": {"Bearer " + master}})
	if code != http.StatusOK {
		s.t.Fatalf("%s %s %s: %d %v", method, path, body, code, got)
	}
	return got
}

// must is get for an object.
func (s *stand) must(method, path, body string) map[string]any {
	s.t.Helper()
	got, ok := s.get(method, path, body).(map[string]any)
	if !ok {
		s.t.Fatalf("%s %s: no object: %v", method, path, got)
	}
	return got
}

// generate makes a key and returns its plaintext.
func (s *stand) generate(body string) string {
	s.t.Helper()
	key, _ := s.must(http.MethodPost, "/key/generate", body)["key"].(string)
	return key
}

func (s *stand) want(got any, want string) {
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
