package outboxsvc

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// loop delivers periodically and tells of every attempt.
type loop struct {
	log      *zap.Logger
	attempts *prometheus.CounterVec
	failures prometheus.Counter
	lost     prometheus.Counter
}

func newLoop(log *zap.Logger, reg prometheus.Registerer) *loop {
	auto := promauto.With(reg)
	l := &loop{
		log: log,
		attempts: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "outboxsvc_attempts_total", Help: "Attempts at charges by what the answer proved.",
		}, []string{"outcome"}),
		failures: auto.NewCounter(prometheus.CounterOpts{
			Name: "outboxsvc_pass_failures_total", Help: "Periodic passes that failed or stopped early.",
		}),
		lost: auto.NewCounter(prometheus.CounterOpts{
			Name: "outboxsvc_unrecorded_outcomes_total", Help: "Outcomes that billing did not take. Each makes its charge ambiguous.",
		}),
	}
	for _, o := range []relay.Outcome{relay.Applied, relay.PartlyApplied, relay.NotApplied, relay.Unknown, relay.Refused} {
		l.attempts.WithLabelValues(string(o))
	}
	return l
}

// Run delivers at once and then at every tick until ctx ends. Charges that a
// failed pass did not settle stay due.
func (l *loop) Run(ctx context.Context, svc *relay.Service, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		start := time.Now()
		p, err := svc.Deliver(ctx)
		l.passed(ctx, p, err, time.Since(start))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *loop) passed(ctx context.Context, p relay.Pass, err error, took time.Duration) {
	fields := []zap.Field{zap.Int64("attempts", p.Attempts), zap.Int64("applied", p.Applied), zap.Int64("duration_ms", took.Milliseconds())}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.failures.Inc()
		fields = append(fields, zap.String("error", fault.Cause(err)))
		if fault.KindOf(err) == fault.Unavailable {
			l.log.Warn("deliver", fields...)
			return
		}
		l.log.Error("deliver", fields...)
	case p.Attempts > 0:
		l.log.Info("deliver", fields...)
	}
}

// observe logs and counts an attempt.
func (l *loop) observe(a relay.Attempt) {
	if a.Sent {
		l.attempts.WithLabelValues(string(a.Verdict.Outcome)).Inc()
	}
	fields := []zap.Field{
		zap.String("charge_id", a.Charge.ChargeID), zap.String("team_id", a.Charge.TeamID),
		zap.Int64("amount_nano_usd", int64(a.Charge.AmountNanoUSD)), zap.Int("attempt", a.Charge.Attempts),
		zap.String("outcome", string(a.Verdict.Outcome)), zap.Bool("sent", a.Sent),
	}
	if a.Verdict.Error != "" {
		fields = append(fields, zap.String("error", a.Verdict.Error))
	}
	if a.Err != nil {
		l.lost.Inc()
		fields = append(fields, zap.String("settle_error", fault.Cause(a.Err)))
	}
	switch {
	case a.Verdict.Outcome == relay.Refused, a.Verdict.Outcome == relay.PartlyApplied, a.Verdict.Outcome == relay.Unknown && !a.Sent:
		l.log.Error("attempt", fields...) // money waits for a human
	case a.Verdict.Outcome == relay.Applied && a.Err == nil:
		l.log.Info("attempt", fields...)
	default:
		l.log.Warn("attempt", fields...)
	}
}
