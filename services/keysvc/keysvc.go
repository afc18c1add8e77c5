// Package keysvc is the service of virtual keys and teams: it issues, verifies
// and revokes keys, opens and closes the gates of teams, and tells watchers of
// every change. It never sees a request to a model or what one costs.
package keysvc

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/gen"
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/rpc"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/store"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/sweep"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/watch"
)

// Migrate brings the database up to date.
func Migrate(ctx context.Context, cfg Config) error {
	pool, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	pool.Close()
	return nil
}

// Run migrates and serves until ctx ends, then drains. It returns nil after a
// clean drain.
func Run(ctx context.Context, cfg Config) error {
	log := serve.Logger(cfg.Serve)
	registry := serve.NewRegistry()
	pool, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	db := store.New(pool)
	hub, err := watch.New(ctx, db, watch.Options{
		Poll: cfg.PollInterval, Heartbeat: cfg.Heartbeat, Log: log, Registry: registry,
	})
	if err != nil {
		return err
	}
	srv, err := serve.New(cfg.Serve, serve.Options{
		Log: log, Registry: registry, OpenAPI: gen.OpenAPI, Ready: pool.Ping, Allow: rpc.Allow(),
	})
	if err != nil {
		return err
	}
	svc := key.NewService(db, cfg.Policy)
	sweeper := sweep.New(svc, sweep.Options{
		Expiry: cfg.ExpiryInterval, Retention: cfg.Retention, Prune: time.Hour, Log: log, Registry: registry,
	})
	keys := rpc.NewKeyServer(rpc.KeyServerConfig{
		Service: svc, Feed: hub, ProxyURL: cfg.PublicURL, Draining: srv.Draining(),
	})
	if err := register(ctx, srv, keys, rpc.NewTeamServer(svc)); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return hub.Run(ctx) })
	g.Go(func() error { return sweeper.Run(ctx) })
	g.Go(func() error { return srv.Run(ctx) })
	return g.Wait()
}

// open returns a pool on a database that is up to date.
func open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	return pgmigrate.Open(ctx, cfg.DatabaseURL.Reveal(), pg.Options{ApplicationName: cfg.Serve.Name}, store.Schema, store.Migrations)
}
