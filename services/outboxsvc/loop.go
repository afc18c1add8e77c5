package outboxsvc

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// every runs f at once, then at every tick and whenever it is woken, until ctx ends.
// What a pass did not do stays due.
func every(ctx context.Context, interval time.Duration, woken <-chan struct{}, f func()) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-woken:
		}
	}
}

// Run delivers charges until ctx ends.
func (l *loop) Run(ctx context.Context, svc *relay.Service, interval time.Duration) error {
	return every(ctx, interval, nil, func() {
		start := time.Now()
		p, err := svc.Deliver(ctx)
		l.delivered(ctx, p, err, time.Since(start))
	})
}

func (l *loop) delivered(ctx context.Context, p relay.Pass, err error, took time.Duration) {
	if err == nil && p.Attempts > 0 {
		l.log.Info("deliver", zap.Int64("attempts", p.Attempts), zap.Int64("applied", p.Applied), zap.Int64("duration_ms", took.Milliseconds()))
	}
	l.failed(ctx, "deliver", err)
}

// RunTopUps asks for the top-ups that are wanted. A purchase may take long, and
// nobody's reading waits for it.
func (l *loop) RunTopUps(ctx context.Context, svc *relay.Service, interval time.Duration) error {
	return every(ctx, interval, nil, func() {
		_, err := svc.TopUpAll(ctx)
		l.failed(ctx, "top_up", err)
	})
}

// RunReads reads the balances that are due, on a nudge too.
func (l *loop) RunReads(ctx context.Context, svc *relay.Service, interval time.Duration) error {
	return every(ctx, interval, svc.Nudged(), func() {
		_, err := svc.Reconcile(ctx, nil)
		l.failed(ctx, "reconcile", err)
	})
}

// failed logs and counts a pass that failed. The next one tries again.
func (l *loop) failed(ctx context.Context, pass string, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	l.failures.WithLabelValues(pass).Inc()
	fields := []zap.Field{zap.String("error", fault.Cause(err))}
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Precondition: // the latter has alarmed when it began
		l.log.Warn(pass, fields...)
	default:
		l.log.Error(pass, fields...)
	}
}
