package proxysvc

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// telemetry is what operators see: one log line a request, counters, and the
// troubles of the ledger and the key watch. No label names a team or a key.
type telemetry struct {
	log      *zap.Logger
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	cost     prometheus.Counter
	tokens   *prometheus.CounterVec
	batches  prometheus.Histogram
	rows     prometheus.Counter
	troubles *prometheus.CounterVec
	failures *prometheus.CounterVec
}

func newTelemetry(cfg Config) *telemetry {
	reg := serve.NewRegistry()
	auto := promauto.With(reg)
	return &telemetry{
		log: serve.Logger(cfg.Serve), registry: reg,
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_requests_total", Help: "Settled requests by how they ended.",
		}, []string{"status", "estimated"}),
		cost: auto.NewCounter(prometheus.CounterOpts{
			Name: "proxysvc_cost_nano_usd_total", Help: "Cost of settled requests in nano-dollars.",
		}),
		tokens: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_tokens_total", Help: "Tokens of settled requests by pool.",
		}, []string{"pool"}),
		batches: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "proxysvc_ledger_commit_seconds", Help: "Duration of the ledger's transactions.",
			// A commit takes about a millisecond; one above a second is trouble.
			Buckets: []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
		rows: auto.NewCounter(prometheus.CounterOpts{
			Name: "proxysvc_ledger_rows_total", Help: "Rows put on the ledger.",
		}),
		troubles: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_troubles_total", Help: "Failed attempts of background work, by what was tried.",
		}, []string{"what"}),
		failures: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_own_errors_total", Help: "Errors of our own that clients got, by type.",
		}, []string{"type"}),
	}
}

func (t *telemetry) watch(running *proxy.Running) {
	promauto.With(t.registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "proxysvc_open_requests", Help: "Requests in flight on this replica.",
	},
		func() float64 { return float64(running.Len()) })
}

// settled logs and counts a request that has ended.
func (t *telemetry) settled(s *ledger.Settlement) {
	estimated := "false"
	if s.Estimated {
		estimated = "true"
	}
	t.requests.WithLabelValues(string(s.Status), estimated).Inc()
	t.cost.Add(float64(s.Cost))
	for pool, n := range map[string]int64{
		"input": s.Usage.InputTokens, "output": s.Usage.OutputTokens, "cache_read": s.Usage.CacheReadTokens,
		"cache_write_5m": s.Usage.CacheWrite5mTokens, "cache_write_1h": s.Usage.CacheWrite1hTokens,
	} {
		t.tokens.WithLabelValues(pool).Add(float64(n))
	}
	t.log.Info("message", zap.String("request_id", s.RequestID), zap.String("team_id", s.TeamID), zap.String("user_id", s.UserID),
		zap.String("key_id", s.KeyID), zap.String("model", s.Model), zap.String("status", string(s.Status)), zap.Bool("estimated", s.Estimated),
		zap.Int("http_status", s.HTTPStatus), zap.String("error_type", s.ErrorType), zap.Int64("cost_nano_usd", int64(s.Cost)),
		zap.Int64("duration_ms", s.EndedAt.Sub(s.StartedAt).Milliseconds()))
}

// failed logs an error of our own that a client got.
func (t *telemetry) failed(requestID string, err error) {
	kind := "cut"
	if own, ok := errors.AsType[*proxy.Error](err); ok {
		kind = own.Type
	}
	t.failures.WithLabelValues(kind).Inc()
	t.log.Warn("message", zap.String("request_id", requestID), zap.String("error", fault.Cause(err)))
}

// Committed implements ledger.Observer.
func (t *telemetry) Committed(settlements, admissions int, took time.Duration) {
	if settlements+admissions > 0 {
		t.batches.Observe(took.Seconds())
		t.rows.Add(float64(settlements))
	}
}

// Trouble implements ledger.Observer.
func (t *telemetry) Trouble(what string, err error) {
	if err == nil {
		t.log.Warn("ledger", zap.String("what", what))
		return
	}
	t.trouble(what, err)
}

func (t *telemetry) trouble(what string, err error) {
	t.troubles.WithLabelValues(what).Inc()
	t.log.Error("trouble", zap.String("what", what), zap.String("error", fault.Cause(err)))
}
