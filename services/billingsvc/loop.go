package billingsvc

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

// partitionInterval is how often partitions are made ahead.
const partitionInterval = 24 * time.Hour

// loop syncs periodically and keeps the partitions made ahead.
type loop struct {
	svc   *billing.Service
	books *store.Store
	log   *zap.Logger

	rows, charges, quarantined, failures prometheus.Counter
	stray                                prometheus.Gauge
}

func newLoop(svc *billing.Service, books *store.Store, log *zap.Logger, reg prometheus.Registerer) *loop {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &loop{
		svc: svc, books: books, log: log,
		rows:        counter("billingsvc_spend_rows_total", "Rows of the ledger that periodic syncs billed."),
		charges:     counter("billingsvc_charges_frozen_total", "Charges that periodic syncs froze."),
		quarantined: counter("billingsvc_rows_quarantined_total", "Rows that periodic syncs could not bill. Should stay 0."),
		failures:    counter("billingsvc_sync_failures_total", "Periodic syncs that failed, in part or whole."),
		stray: auto.NewGauge(prometheus.GaugeOpts{
			Name: "billingsvc_stray_events", Help: "Events in the default partition. Should stay 0.",
		}),
	}
}

// Run syncs at once and then at every tick until ctx ends. A failed sync has
// written whole pages or nothing; the next one goes on from there.
func (l *loop) Run(ctx context.Context, interval time.Duration) error {
	tick, partitions := time.NewTicker(interval), time.NewTicker(partitionInterval)
	defer tick.Stop()
	defer partitions.Stop()
	l.partition(ctx)
	for {
		l.sync(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-partitions.C:
			l.partition(ctx)
		case <-tick.C:
		}
	}
}

func (l *loop) sync(ctx context.Context) {
	start := time.Now()
	r, err := l.svc.Sync(ctx)
	l.rows.Add(float64(r.Rows))
	l.charges.Add(float64(r.Charges))
	l.quarantined.Add(float64(r.Quarantined))
	fields := []zap.Field{
		zap.Int64("rows", r.Rows), zap.Int64("events", r.Events), zap.Int64("charges", r.Charges),
		zap.Int64("quarantined", r.Quarantined), zap.Int64("duration_ms", time.Since(start).Milliseconds()),
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.failures.Inc()
		fields = append(fields, zap.String("error", fault.Cause(err)))
		if fault.KindOf(err) == fault.Unavailable {
			l.log.Warn("sync", fields...)
			return
		}
		l.log.Error("sync", fields...)
	case r.Quarantined > 0:
		l.log.Error("sync", fields...)
	case r.Rows > 0:
		l.log.Info("sync", fields...)
	}
}

func (l *loop) partition(ctx context.Context) {
	stray, err := l.books.EnsurePartitions(ctx, time.Now())
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.log.Error("partitions", zap.String("error", fault.Cause(err)))
	default:
		l.stray.Set(float64(stray))
		if stray > 0 {
			l.log.Error("partitions", zap.Int64("stray_events", stray))
		}
	}
}
