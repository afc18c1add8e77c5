// Package proxysvc is the edge: it serves /v1/messages to sandboxes and the
// admin routes to the gateway, and keeps the spend ledger.
package proxysvc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/alert"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/config"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/journal"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/store"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/upstream"

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
	return pgmigrate.Open(ctx, cfg.DatabaseURL.Reveal(), pg.Options{ApplicationName: cfg.Serve.Name, IdleInTransaction: 5 * time.Second}, store.Schema, store.Migrations)
}

// Run serves until ctx ends, then drains: running streams end, the ledger gets
// what they cost, and the log is closed.
func Run(ctx context.Context, cfg Config) (err error) {
	t := newTelemetry(cfg)
	defer t.log.Sync() //nolint:errcheck // there is nobody to tell
	pool, err := openDatabase(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	db := store.New(pool)
	if err := db.EnsurePartitions(ctx, time.Now(), partitionsAhead); err != nil {
		return err
	}
	if why, err := db.PublishView(ctx); err != nil || why != "" {
		t.log.Warn("LiteLLM_SpendLogs is not in the schema public; readers find it in the schema spend", zap.String("why", why), zap.Error(err))
	}
	conn, err := cfg.Serve.Caller.Dial(cfg.KeysvcTarget)
	if err != nil {
		return fmt.Errorf("dial keysvc: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	running := proxy.NewRunning(cfg.CutExhausted)
	alerts := alert.New(db, cfg.AlertWebhook, t.due, t.trouble)
	router := proxy.NewRouter(cfg.Routing)
	t.watch(running, router)
	t.warn(cfg.Warnings)
	verifier := keys.New(keysv1.NewKeyServiceClient(conn), cfg.Keys, running, t.trouble)
	book, records, err := openJournal(ctx, cfg, db)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	writer := ledger.NewWriter(db, book, records, cfg.Ledger, t)
	svc := proxy.New(proxy.Parts{
		Keys: verifier, Ledger: writer, Threads: db, Upstream: upstream.New(), Router: router,
		Book: cfg.Prices, Running: running, Settled: t.settled, Withdrawn: t.withdrawn, Warn: alerts.Warn, Settings: cfg.Proxy,
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
	workers.Go(func() error { return alerts.Run(work) })
	workers.Go(func() error { return reload(work, cfg, router, t) })
	workers.Go(func() error { return keepHouse(work, db, cfg.Retention, t) })
	workers.Go(func() error { return keepTotals(work, db, t) })
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

// openJournal opens the journal of this ledger: a directory may serve several.
func openJournal(ctx context.Context, cfg Config, db *store.Store) (*journal.Journal[ledger.Record], []ledger.Record, error) {
	id, err := db.LedgerID(ctx)
	if err != nil {
		return nil, nil, err
	}
	return journal.Open[ledger.Record](filepath.Join(cfg.JournalDir, id))
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

// threadsKept is how long a conversation is remembered that an upstream keeps:
// as long as OpenAI keeps a response.
const threadsKept = 30 * 24 * time.Hour

// reload puts changes of config.yaml and of the real keys in place while
// requests run; SIGHUP makes it look at once.
func reload(ctx context.Context, cfg Config, router *proxy.Router, t *telemetry) error {
	tick := time.NewTicker(cfg.ReloadInterval)
	defer tick.Stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	return cfg.Source.Watch(ctx, tick.C, hup, func(c config.Config) {
		router.Replace(c.Routing)
		t.reloaded(len(c.Routing.Deployments))
		t.warn(c.Warnings)
	}, t.notReloaded)
}

// countEvery is how often totals are brought up to the rows. The longer it is, the more
// rows of an account are added at once; and the more have to be read by whoever asks, a
// millisecond for each thousand.
const countEvery = 10 * time.Second

// keepTotals brings the totals up to the rows of all logs, together with the other
// replicas.
func keepTotals(ctx context.Context, db *store.Store, t *telemetry) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := db.Count(ctx, countEvery/2); err != nil && ctx.Err() == nil {
				t.trouble("bring the totals up to the rows", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// keepHouse makes partitions ahead, looks for rows that none took, and lets go of
// what is older than it must be kept.
func keepHouse(ctx context.Context, db *store.Store, retention time.Duration, t *telemetry) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		now := time.Now()
		if err := db.EnsurePartitions(ctx, now, partitionsAhead); err != nil {
			t.trouble("make partitions", err)
		}
		if err := db.ForgetThreads(ctx, now.Add(-threadsKept)); err != nil {
			t.trouble("forget conversations", err)
		}
		if n, err := db.Unplaced(ctx); err != nil {
			t.trouble("count rows without a day", err)
		} else {
			t.unplaced.Set(float64(n))
		}
		if retention > 0 {
			if _, err := db.Detach(ctx, now.Add(-retention)); err != nil {
				t.trouble("detach old days", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
