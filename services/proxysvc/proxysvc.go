// Package proxysvc is the edge: it serves /v1/messages to sandboxes and the
// admin routes to the gateway, and keeps the spend ledger.
package proxysvc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/anthropic"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/store"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// Migrate brings the schema spend up to date.
func Migrate(ctx context.Context, cfg Config) error {
	pool, err := openDatabase(ctx, cfg)
	if err != nil {
		return err
	}
	pool.Close()
	return nil
}

func openDatabase(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	return pgmigrate.Open(ctx, cfg.DatabaseURL.Reveal(), pg.Options{ApplicationName: cfg.Serve.Name}, store.Schema, store.Migrations)
}

// Run serves until ctx ends, then drains: running streams end, the ledger gets
// what they cost, and the log is closed.
func Run(ctx context.Context, cfg Config) (err error) {
	t := newTelemetry(cfg)
	defer t.log.Sync() //nolint:errcheck // standard error need not be synced
	pool, err := openDatabase(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	db := store.New(pool)
	if err := db.EnsurePartitions(ctx, time.Now(), partitionsAhead); err != nil {
		return err
	}
	conn, err := serve.Dial(cfg.KeysvcTarget, cfg.Serve.ServiceToken)
	if err != nil {
		return fmt.Errorf("dial keysvc: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	running := proxy.NewRunning()
	t.watch(running)
	verifier := keys.New(keysv1.NewKeyServiceClient(conn), cfg.Keys, running.Stop, t.trouble)
	writer := ledger.NewWriter(db, cfg.Ledger, t)
	svc := proxy.New(proxy.Parts{
		Keys: verifier, Ledger: writer, Upstream: anthropic.New(), Router: proxy.NewRouter(cfg.Deployments),
		Book: cfg.Prices, Running: running, Settled: t.settled, Settings: cfg.Proxy,
	})
	srv, closeServer, err := newServer(ctx, cfg, parts{t, db, svc, writer, verifier, conn})
	if err != nil {
		return err
	}
	defer closeServer()

	// The workers outlive the server: what drains still needs them.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	workers, work := errgroup.WithContext(work)
	workers.Go(func() error { return writer.Run(work) })
	workers.Go(func() error { return verifier.Run(work) })
	workers.Go(func() error { return keepPartitions(work, db, t.trouble) })
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	defer context.AfterFunc(work, stopServing)() // a worker that fails ends the server
	defer context.AfterFunc(ctx, func() { cutLate(work, cfg.Serve.Drain, running) })()
	err = srv.Run(serving)
	writer.Stop()
	stopLate := time.AfterFunc(cfg.Proxy.SettleTimeout, stopWork)
	defer stopLate.Stop()
	<-writer.Done()
	stopWork()
	return errors.Join(err, workers.Wait())
}

// cutLate ends what still runs shortly before the drain is over, so that it is
// told and settled rather than torn down.
func cutLate(ctx context.Context, drain time.Duration, running *proxy.Running) {
	select {
	case <-time.After(drain - drain/5):
		running.Shutdown()
	case <-ctx.Done():
	}
}

// partitionsAhead is how many days of partitions are made in advance.
const partitionsAhead = 8

func keepPartitions(ctx context.Context, db *store.Store, note func(string, error)) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := db.EnsurePartitions(ctx, time.Now(), partitionsAhead); err != nil {
				note("make partitions", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
