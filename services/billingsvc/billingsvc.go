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
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/rpc"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/spend"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

// Run serves until ctx ends and drains. It brings the database up to date
// first.
func Run(ctx context.Context, cfg Config) error {
	log := serve.Logger(cfg.Serve)
	pool, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := cfg.Serve.Caller.Dial(cfg.ProxysvcTarget)
	if err != nil {
		return fmt.Errorf("PROXYSVC_TARGET: %w", err)
	}
	defer conn.Close() // nothing is lost
	books := store.New(pool)
	opt := billing.Options{Rules: cfg.Rules, Reconcile: cfg.Reconcile, TopUps: cfg.TopUps, Batch: cfg.BatchRows, Now: cfg.Now}
	if cfg.KeysvcTarget == "" {
		log.Warn("gates stop nobody: KEYSVC_TARGET is not set")
	} else {
		keysvc, err := cfg.Serve.Caller.Dial(cfg.KeysvcTarget)
		if err != nil {
			return fmt.Errorf("KEYSVC_TARGET: %w", err)
		}
		defer keysvc.Close() // what was not announced stays due
		opt.Keys = keys.New(keysvc)
	}
	reg := serve.NewRegistry()
	opt.Observe = newDrifts(reg).observe
	svc := billing.New(spend.New(conn), books, opt)
	srv, err := serve.New(cfg.Serve, serve.Options{Log: log, Registry: reg, OpenAPI: gen.OpenAPI, Ready: books.Ping, Allow: rpc.Allow()})
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
	g.Go(func() error { return newHerald(svc, log, reg).Run(ctx) })
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
