package billingsvc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// drifts counts reconciliations.
type drifts struct {
	found  *prometheus.CounterVec
	alarms prometheus.Counter
}

func newDrifts(reg prometheus.Registerer) *drifts {
	auto := promauto.With(reg)
	return &drifts{
		found: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "billingsvc_reconciliations_total", Help: "Reconciliations by what they found.",
		}, []string{"class"}),
		alarms: auto.NewCounter(prometheus.CounterOpts{
			Name: "billingsvc_drift_alarms_total", Help: "Reconciliations with an unexplained drift above the thresholds. Should stay 0.",
		}),
	}
}

func (d *drifts) observe(r billing.Reconciliation) {
	d.found.WithLabelValues(string(r.Class)).Inc()
	if r.Alarm {
		d.alarms.Inc()
	}
}
