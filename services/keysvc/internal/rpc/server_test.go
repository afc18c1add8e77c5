package rpc_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/proliferate-ai/llm-proxy/gen"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/rpc"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/store"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/sweep"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/watch"
)

const (
	token      = "sk-master-0123456789"
	issueToken = "gateway-0123456789"
	readToken  = "finance-0123456789"
)

// server is the whole service on a database of its own.
type server struct {
	keys  keysv1.KeyServiceClient
	teams keysv1.TeamServiceClient
	db    *pgxpool.Pool
	grpc  string
	http  string
	stop  func() error // drains; may be called again
}

// options choose what of the service is different.
type options struct {
	poll      time.Duration // zero: 250ms
	heartbeat time.Duration // zero: 500ms
	deaf      bool          // no notification ever arrives
}

// deaf is a log whose notifications are lost.
type deaf struct{ *store.Store }

func (deaf) Listen(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

func start(t testing.TB, o options) server {
	t.Helper()
	if o.poll == 0 {
		o.poll, o.heartbeat = 250*time.Millisecond, 500*time.Millisecond
	}
	s := server{db: pgtest.New(t, store.Schema, store.Migrations)}
	db, registry := store.New(s.db), prometheus.NewRegistry()
	var log watch.Log = db
	if o.deaf {
		log = deaf{db}
	}
	hub, err := watch.New(t.Context(), log, watch.Options{
		Poll: o.poll, Heartbeat: o.heartbeat, Log: zap.NewNop(), Registry: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := serve.New(serve.Config{
		Name: "keysvc", GRPCListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0",
		Tokens: []serve.Token{
			{Actor: "master", Secret: secret.New(token)},
			{Actor: "gateway", Secret: secret.New(issueToken), Scope: serve.Issue},
			{Actor: "finance", Secret: secret.New(readToken), Scope: serve.Read},
		},
		Drain: 10 * time.Second, DrainWait: time.Millisecond,
	}, serve.Options{Log: zap.NewNop(), Registry: registry, OpenAPI: gen.OpenAPI, Ready: s.db.Ping, Allow: rpc.Allow()})
	if err != nil {
		t.Fatal(err)
	}
	svc := key.NewService(db, key.Policy{SessionDuration: "30d"})
	keysv1.RegisterKeyServiceServer(srv.GRPC(), rpc.NewKeyServer(rpc.KeyServerConfig{
		Service: svc, Feed: hub, ProxyURL: "https://llm.example.com", Draining: srv.Draining(),
	}))
	keysv1.RegisterTeamServiceServer(srv.GRPC(), rpc.NewTeamServer(svc))
	for _, register := range []func(context.Context, *serve.Server) error{
		func(ctx context.Context, srv *serve.Server) error {
			return keysv1.RegisterKeyServiceHandler(ctx, srv.Mux(), srv.Conn())
		},
		func(ctx context.Context, srv *serve.Server) error {
			return keysv1.RegisterTeamServiceHandler(ctx, srv.Mux(), srv.Conn())
		},
	} {
		if err := register(t.Context(), srv); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	sweeper := sweep.New(svc, sweep.Options{
		Expiry: 20 * time.Millisecond, Prune: time.Hour, Log: zap.NewNop(), Registry: registry,
		Retention: key.Retention{Events: time.Hour, Audit: time.Hour},
	})
	g.Go(func() error { return hub.Run(ctx) })
	g.Go(func() error { return sweeper.Run(ctx) })
	g.Go(func() error { return srv.Run(ctx) })
	s.stop = func() error { cancel(); return g.Wait() }
	s.grpc, s.http = srv.GRPCAddr(), "http://"+srv.HTTPAddr()
	conn := s.dial(t, token)
	s.keys, s.teams = keysv1.NewKeyServiceClient(conn), keysv1.NewTeamServiceClient(conn)
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return s
}

func (s server) dial(t testing.TB, token string) *grpc.ClientConn {
	t.Helper()
	conn, err := serve.Caller{Token: secret.New(token)}.Dial(s.grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s server) issue(t testing.TB, userID string) *keysv1.IssueSessionKeyResponse {
	t.Helper()
	resp, err := s.keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: userID, TeamId: "org-1"})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (s server) revoke(t *testing.T, req *keysv1.RevokeKeysRequest) *keysv1.RevokeKeysResponse {
	t.Helper()
	resp, err := s.keys.RevokeKeys(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func mustStruct(t *testing.T, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantStatus(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if st := status.Convert(err); st.Code() != code || st.Message() != text {
		t.Errorf("got %v, want %s %q", err, code, text)
	}
}
