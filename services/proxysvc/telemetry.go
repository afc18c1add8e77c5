package proxysvc

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// telemetry is what operators see: one log line a request, counters, and the
// troubles of the ledger and the key watch. No label names a team or a key.
type telemetry struct {
	log      *zap.Logger
	message  *zap.Logger // of the line that every request has
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	cost     prometheus.Counter
	tokens   [len(pools)]prometheus.Counter
	batches  prometheus.Histogram
	rows     prometheus.Counter
	troubles *prometheus.CounterVec
	failures *prometheus.CounterVec
	refused  *prometheus.CounterVec
	reloads  *prometheus.CounterVec
	unplaced prometheus.Gauge

	softBudgets prometheus.Counter
	unpriced    prometheus.Counter
}

// pools are the labels of tokens.
var pools = [...]string{"input", "output", "cache_read", "cache_write_5m", "cache_write_1h"}

func newTelemetry(cfg Config) *telemetry {
	reg := serve.NewRegistry()
	auto := promauto.With(reg)
	log := serve.Logger(cfg.Serve)
	t := &telemetry{
		log: log, message: serve.Unhurried(log), registry: reg,
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_requests_total", Help: "Settled requests by how they ended.",
		}, []string{"status", "estimated"}),
		cost: auto.NewCounter(prometheus.CounterOpts{
			Name: "proxysvc_cost_nano_usd_total", Help: "Cost of settled requests in nano-dollars.",
		}),
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
		refused: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_credential_refused_total", Help: "Answers 401 or 403 of upstreams to our own credential; look at once.",
		}, []string{"model_id"}),
		reloads: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "proxysvc_config_reloads_total", Help: "Changes of config.yaml or of real keys, by whether they were taken.",
		}, []string{"result"}),
		softBudgets: auto.NewCounter(prometheus.CounterOpts{
			Name: "proxysvc_soft_budgets_crossed_total", Help: "Soft budgets that were spent, once for each account and window.",
		}),
		unpriced: auto.NewCounter(prometheus.CounterOpts{
			Name: "proxysvc_unpriced_models_total", Help: "Models that were asked for and have no price, once for each; add them to the price list.",
		}),
		unplaced: auto.NewGauge(prometheus.GaugeOpts{
			Name: "proxysvc_unplaced_rows", Help: "Rows of the ledger that no day's partition took; above 0 somebody must look.",
		}),
	}
	tokens := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "proxysvc_tokens_total", Help: "Tokens of settled requests by pool.",
	}, []string{"pool"})
	for n, pool := range pools {
		t.tokens[n] = tokens.WithLabelValues(pool)
	}
	return t
}

// conditions are the label values of a deployment's condition.
var conditions = map[proxy.Condition]string{
	proxy.Healthy: "healthy", proxy.Cooling: "cooling", proxy.Withdrawn: "withdrawn", proxy.Full: "full",
}

func (t *telemetry) watch(running *proxy.Running, router *proxy.Router) {
	for c, name := range conditions {
		promauto.With(t.registry).NewGaugeFunc(prometheus.GaugeOpts{
			Name: "proxysvc_deployments", Help: "Deployments by their condition on this replica.",
			ConstLabels: prometheus.Labels{"condition": name},
		}, func() float64 { return float64(router.Conditions(time.Now())[c]) })
	}
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
	u := s.Usage
	for n, tokens := range [...]int64{u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens} {
		t.tokens[n].Add(float64(tokens))
	}
	t.message.Info("message", zap.Inline((*settled)(s)))
}

// settled is a settlement as it is logged: one object, however many fields.
type settled ledger.Settlement

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (s *settled) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("request_id", s.RequestID)
	to.AddString("team_id", s.TeamID)
	to.AddString("user_id", s.UserID)
	to.AddString("key_id", s.KeyID)
	to.AddString("model", s.Model)
	to.AddString("status", string(s.Status))
	to.AddBool("estimated", s.Estimated)
	to.AddInt("http_status", s.HTTPStatus)
	to.AddString("error_type", s.ErrorType)
	to.AddInt64("cost_nano_usd", int64(s.Cost))
	to.AddInt64("duration_ms", s.EndedAt.Sub(s.StartedAt).Milliseconds())
	return nil
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

// due counts, and of a model logs, a warning that nobody gave before.
func (t *telemetry) due(w ledger.Warning) {
	if !w.Unpriced() {
		t.softBudgets.Inc()
		return
	}
	t.unpriced.Inc()
	t.log.Error("model without a price", zap.String("model", w.Account.ID))
}

// withdrawn reports a deployment that refused our own credential.
func (t *telemetry) withdrawn(d proxy.Deployment, status int) {
	t.refused.WithLabelValues(d.ID).Inc()
	t.log.Error("credential refused", zap.String("model_id", d.ID), zap.String("model_name", d.ModelName),
		zap.String("api_base", d.APIBase), zap.Int("http_status", status))
}

func (t *telemetry) warn(warnings []string) {
	for _, w := range warnings {
		t.log.Warn("config", zap.String("what", w))
	}
}

func (t *telemetry) reloaded(deployments int) {
	t.reloads.WithLabelValues("taken").Inc()
	t.log.Info("config", zap.String("what", "reloaded"), zap.Int("deployments", deployments))
}

func (t *telemetry) notReloaded(err error) {
	t.reloads.WithLabelValues("refused").Inc()
	t.log.Error("config", zap.String("what", "refused; what was loaded before stays in force"), zap.String("error", err.Error()))
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
