// Package billingsvc is the billing service: it bills teams for what the ledger
// says they spent and freezes the charges that outboxsvc posts.
package billingsvc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/gen"
	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/rpc"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/spend"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

// Config is what the service needs.
type Config struct {
	Serve          serve.Config
	DatabaseURL    secret.String
	ProxysvcTarget string        // host:port of SpendService, gRPC
	SyncInterval   time.Duration // between two syncs
	Markup         billing.Markup
}

// LoadConfig reads the configuration from the environment and reports every
// fault at once.
func LoadConfig(getenv func(string) string) (Config, error) {
	r := &env.Reader{Get: getenv}
	cfg := Config{
		Serve:          serve.LoadConfig(r, "billingsvc", "BILLINGSVC", serve.Defaults{GRPCListen: ":9102", HTTPListen: ":8102", Drain: 20 * time.Second}),
		DatabaseURL:    secret.New(r.Need("DATABASE_URL", "a Postgres URL such as postgres://user:password@host:5432/llmproxy")),
		ProxysvcTarget: r.Need("PROXYSVC_TARGET", "the gRPC host:port of proxysvc"),
		SyncInterval:   r.Duration("BILLING_SYNC_INTERVAL", 30*time.Second),
	}
	var err error
	if cfg.Markup, err = billing.ParseMarkup(r.String("LLM_MARKUP", "3")); err != nil {
		r.Fault("LLM_MARKUP", "%v", err)
	}
	return cfg, r.Err()
}

// Run serves until ctx ends and drains. It brings the database up to date
// first.
func Run(ctx context.Context, cfg Config) error {
	log := serve.Logger(cfg.Serve)
	pool, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := serve.Dial(cfg.ProxysvcTarget, cfg.Serve.ServiceToken)
	if err != nil {
		return fmt.Errorf("PROXYSVC_TARGET: %w", err)
	}
	defer conn.Close() // nothing is lost
	books := store.New(pool)
	svc := billing.New(spend.New(conn), books, cfg.Markup)

	reg := serve.NewRegistry()
	srv, err := serve.New(cfg.Serve, serve.Options{Log: log, Registry: reg, OpenAPI: gen.OpenAPI, Ready: books.Ping})
	if err != nil {
		return err
	}
	billingsvcv1.RegisterBillingServiceServer(srv.GRPC(), rpc.New(svc))
	if err := billingsvcv1.RegisterBillingServiceHandler(ctx, srv.Mux(), srv.Conn()); err != nil {
		return fmt.Errorf("register gateway: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Run(ctx) })
	g.Go(func() error { return newLoop(svc, books, log, reg).Run(ctx, cfg.SyncInterval) })
	return g.Wait()
}

// Migrate brings the database up to date.
func Migrate(ctx context.Context, cfg Config) error {
	pool, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	pool.Close()
	return nil
}

// open returns a pool on the migrated database. The caller closes it.
func open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pool, err := pgmigrate.Open(ctx, cfg.DatabaseURL.Reveal(), pg.Options{ApplicationName: cfg.Serve.Name}, store.Schema, store.Migrations)
	if err != nil {
		return nil, err
	}
	if _, err := store.New(pool).EnsurePartitions(ctx, time.Now()); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}
