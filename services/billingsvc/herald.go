package billingsvc

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

const (
	// heraldInterval is how long an announcement that another replica left
	// behind waits at the most; one's own goes out at once.
	heraldInterval = 500 * time.Millisecond
	// gateInterval is how late the end of a grace may be noticed.
	gateInterval = 5 * time.Second
)

// herald moves gates whose time has come and tells keysvc of gates that moved.
type herald struct {
	svc      *billing.Service
	log      *zap.Logger
	failures prometheus.Counter
}

func newHerald(svc *billing.Service, log *zap.Logger, reg prometheus.Registerer) *herald {
	return &herald{svc: svc, log: log, failures: promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "billingsvc_announce_failures_total", Help: "Passes that could not tell keysvc of a gate, or could not move one.",
	})}
}

// Run announces whenever a gate may have moved, and at every tick, until ctx
// ends. What fails stays due.
func (h *herald) Run(ctx context.Context) error {
	tick, gates := time.NewTicker(heraldInterval), time.NewTicker(gateInterval)
	defer tick.Stop()
	defer gates.Stop()
	for {
		for more := true; more && ctx.Err() == nil; {
			var err error
			more, err = h.svc.Announce(ctx)
			h.note(ctx, "announce", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-gates.C:
			h.note(ctx, "check gates", h.svc.CheckGates(ctx))
		case <-h.svc.Woken():
		case <-tick.C:
		}
	}
}

func (h *herald) note(ctx context.Context, doing string, err error) {
	switch {
	case err == nil || ctx.Err() != nil:
		return
	case fault.KindOf(err) == fault.Unavailable:
		h.log.Warn(doing, zap.String("error", fault.Cause(err)))
	default:
		h.log.Error(doing, zap.String("error", fault.Cause(err)))
	}
	h.failures.Inc()
}
