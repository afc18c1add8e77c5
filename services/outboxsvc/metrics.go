package outboxsvc

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// loop delivers and reads periodically, and tells of every attempt.
type loop struct {
	log      *zap.Logger
	attempts *prometheus.CounterVec
	failures *prometheus.CounterVec
	lost     prometheus.Counter
	halts    prometheus.Gauge
	reads    *prometheus.CounterVec
	topUps   *prometheus.CounterVec
	webhooks *prometheus.CounterVec

	hooksTaken, hooksRefused atomic.Int64
}

func newLoop(log *zap.Logger, reg prometheus.Registerer) *loop {
	auto := promauto.With(reg)
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	return &loop{
		log: log,
		attempts: vec("outboxsvc_attempts_total", "Attempts at charges by what they came to.", "outcome",
			string(relay.Applied), string(relay.PartlyApplied), string(relay.NotApplied), string(relay.Unknown), string(relay.Refused), string(relay.NeverApplied)),
		failures: vec("outboxsvc_pass_failures_total", "Periodic passes that failed or stopped early.", "pass", "deliver", "reconcile", "top_up"),
		lost: auto.NewCounter(prometheus.CounterOpts{
			Name: "outboxsvc_unrecorded_outcomes_total", Help: "Outcomes that billing did not take. Each makes its charge ambiguous.",
		}),
		halts: auto.NewGauge(prometheus.GaugeOpts{
			Name: "outboxsvc_halted", Help: "1 while the sink refuses our credentials or is of another environment: nothing is posted.",
		}),
		reads:    vec("outboxsvc_balance_reads_total", "Balances read at the sink: ok, drift (not explained), failed.", "result", "ok", "drift", "failed"),
		topUps:   vec("outboxsvc_top_ups_total", "Attempts at top-ups by what they came to.", "outcome", string(relay.Paid), string(relay.Declined), string(relay.NotDone), string(relay.Unsure), string(relay.Rejected)),
		webhooks: vec("outboxsvc_webhooks_total", "Webhooks: taken or refused.", "result", "taken", "refused"),
	}
}

// watch shows what a service knows by itself.
func (l *loop) watch(reg prometheus.Registerer, svc *relay.Service) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "outboxsvc_undecided_charges", Help: "Charges that may have been applied and that nothing here can decide: a human must resolve them. From the books: each replica shows the same number.",
	}, func() float64 { return float64(svc.Stats().Undecided) })
}

// observe logs and counts an attempt.
func (l *loop) observe(a relay.Attempt) {
	l.attempts.WithLabelValues(string(a.Verdict.Outcome)).Inc()
	fields := []zap.Field{
		zap.String("charge_id", a.Charge.ChargeID), zap.String("team_id", a.Charge.TeamID),
		zap.Int64("amount_nano_usd", int64(a.Charge.AmountNanoUSD)), zap.Int("attempt", a.Charge.Attempts),
		zap.String("outcome", string(a.Verdict.Outcome)), zap.Bool("sent", a.Sent),
	}
	if a.Verdict.Proof != "" {
		fields = append(fields, zap.String("proof", a.Verdict.Proof))
	}
	if a.Verdict.Error != "" {
		fields = append(fields, zap.String("error", a.Verdict.Error))
	}
	if a.Err != nil {
		l.lost.Inc()
		fields = append(fields, zap.String("settle_error", fault.Cause(a.Err)))
	}
	switch {
	case a.Verdict.Outcome == relay.Refused, a.Verdict.Outcome == relay.PartlyApplied, a.Verdict.Do == relay.Verify:
		l.log.Error("attempt", fields...) // money waits for a human
	case a.Verdict.Outcome == relay.Applied && a.Err == nil:
		l.log.Info("attempt", fields...)
	default:
		l.log.Warn("attempt", fields...)
	}
}

// read logs and counts a balance that was read.
func (l *loop) read(r relay.Reconciled) {
	fields := []zap.Field{
		zap.String("team_id", r.TeamID), zap.String("class", r.Class),
		zap.Int64("drift_nano_usd", int64(r.DriftNanoUSD)), zap.Int64("usage_drift_nano_usd", int64(r.UsageDrift)),
	}
	switch {
	case r.Err != nil:
		l.reads.WithLabelValues("failed").Inc()
		l.log.Warn("read balance", append(fields, zap.String("error", fault.Cause(r.Err)))...)
	case !r.Fixed:
		l.reads.WithLabelValues("drift").Inc()
		l.log.Error("read balance", append(fields, zap.String("detail", r.Detail))...)
	default:
		l.reads.WithLabelValues("ok").Inc()
		l.log.Debug("read balance", fields...)
	}
}

// bought logs and counts an attempt at a top-up.
func (l *loop) bought(t relay.TopUp, p relay.Purchase, err error) {
	l.topUps.WithLabelValues(string(p.Outcome)).Inc()
	fields := []zap.Field{
		zap.String("top_up_id", t.TopUpID), zap.String("team_id", t.TeamID), zap.Int64("amount_nano_usd", int64(t.AmountNanoUSD)),
		zap.String("outcome", string(p.Outcome)), zap.String("detail", p.Detail),
	}
	if err != nil {
		l.lost.Inc()
		fields = append(fields, zap.String("settle_error", fault.Cause(err)))
	}
	if p.Outcome == relay.Paid && err == nil {
		l.log.Info("top up", fields...)
		return
	}
	l.log.Warn("top up", fields...)
}

// halted alarms: nobody's charges are posted until a human has acted.
func (l *loop) halted(why string) {
	if why == "" {
		l.halts.Set(0)
		l.log.Info("posting goes on")
		return
	}
	l.halts.Set(1)
	l.log.Error("posting stopped", zap.String("reason", why))
}

// hooked counts a webhook. Refused ones are not logged by their content.
func (l *loop) hooked(kind, refused string) {
	if refused != "" {
		l.hooksRefused.Add(1)
		l.webhooks.WithLabelValues("refused").Inc()
		l.log.Warn("webhook", zap.String("refused", refused))
		return
	}
	l.hooksTaken.Add(1)
	l.webhooks.WithLabelValues("taken").Inc()
	l.log.Debug("webhook", zap.String("kind", kind))
}

// hooks tells how many webhooks were taken and refused.
func (l *loop) hooks() (taken, refused int64) { return l.hooksTaken.Load(), l.hooksRefused.Load() }
