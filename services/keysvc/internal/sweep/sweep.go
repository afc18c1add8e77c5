// Package sweep does what time alone asks for: it announces keys and old secrets
// whose end has come, and deletes events and audit rows that are kept no longer.
// Every replica sweeps; whatever one has taken, the others pass over.
package sweep

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Keys is what the sweeper asks for; each call does a bounded part and says how
// much it did.
type Keys interface {
	Expire(ctx context.Context, limit int) (int, error)
	Prune(ctx context.Context, r key.Retention, limit int) (int, error)
}

// Options configure a sweeper.
type Options struct {
	// Expiry is how often ends are looked for: no end is announced later than
	// this, and the time of a transaction, after it came.
	Expiry time.Duration
	// Retention says what is deleted, which is looked for every Prune.
	Retention key.Retention
	Prune     time.Duration
	Log       *zap.Logger
	Registry  prometheus.Registerer
}

const (
	expireAtOnce = 500
	pruneAtOnce  = 5000
)

// Sweeper announces and deletes.
type Sweeper struct {
	keys            Keys
	opt             Options
	expired, pruned prometheus.Counter
	failed          *prometheus.CounterVec
}

// New makes a sweeper.
func New(keys Keys, opt Options) *Sweeper {
	auto := promauto.With(opt.Registry)
	return &Sweeper{
		keys: keys, opt: opt,
		expired: auto.NewCounter(prometheus.CounterOpts{
			Name: "keysvc_expired_keys_total", Help: "Keys and old secrets whose end this process announced.",
		}),
		pruned: auto.NewCounter(prometheus.CounterOpts{
			Name: "keysvc_pruned_rows_total", Help: "Events and audit rows that this process deleted because of their age.",
		}),
		failed: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "keysvc_failed_sweeps_total", Help: "Sweeps that did not succeed, by what they were for; the next one takes over.",
		}, []string{"sweep"}),
	}
}

// Run sweeps until ctx ends. Ends go on being announced while much is deleted.
func (s *Sweeper) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		every(ctx, s.opt.Expiry, func() { s.sweep(ctx, "expire", s.expired, expireAtOnce, s.keys.Expire) })
		return nil
	})
	g.Go(func() error {
		every(ctx, s.opt.Prune, func() {
			s.sweep(ctx, "prune", s.pruned, pruneAtOnce, func(ctx context.Context, limit int) (int, error) {
				return s.keys.Prune(ctx, s.opt.Retention, limit)
			})
		})
		return nil
	})
	return g.Wait()
}

// every calls f at once and then on every tick, until ctx ends.
func every(ctx context.Context, pause time.Duration, f func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep calls f until there is less than it does at once.
func (s *Sweeper) sweep(ctx context.Context, what string, count prometheus.Counter, limit int, f func(context.Context, int) (int, error)) {
	for ctx.Err() == nil {
		n, err := f(ctx, limit)
		count.Add(float64(n))
		if err != nil && ctx.Err() == nil {
			s.failed.WithLabelValues(what).Inc()
			s.opt.Log.Error("sweep", zap.String("sweep", what), zap.String("error", fault.Cause(err)))
		}
		if err != nil || n < limit {
			return
		}
	}
}
