// Package watch hands the log of key changes to those who watch it: one reader
// per process, any number of watchers.
//
// A heartbeat is a promise: whoever receives it has received every change that
// was committed before the log was last read, at most a heartbeat interval ago.
// So none is sent while the log cannot be read, and watchers then stop
// trusting what they remember.
package watch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Log is the log of changes.
type Log interface {
	// Events returns up to limit events after a revision, in order and without
	// gaps, and the newest revision there is.
	Events(ctx context.Context, after int64, limit int) ([]key.Event, int64, error)
	// Listen calls woken when there may be new events, until it breaks. It is a
	// hint only: calls may be missing.
	Listen(ctx context.Context, woken func()) error
}

// Options configure a hub.
type Options struct {
	Poll      time.Duration // how often the log is read when nothing wakes the hub
	Heartbeat time.Duration // at least as long as Poll
	Log       *zap.Logger
	Registry  prometheus.Registerer
}

const (
	pageSize = 500  // events per read
	buffered = 1024 // messages that a watcher may be behind
)

// Hub reads the log and fans it out.
type Hub struct {
	log  Log
	opt  Options
	wake chan struct{}

	revision int64 // newest that was read; only Run's reader uses it

	mu       sync.Mutex
	watchers map[*watcher]struct{}

	current            prometheus.Gauge
	read, lost, failed prometheus.Counter
}

// New makes a hub that starts at the newest revision of the log.
func New(ctx context.Context, log Log, opt Options) (*Hub, error) {
	_, newest, err := log.Events(ctx, 0, 1)
	if err != nil {
		return nil, fmt.Errorf("find the newest revision: %w", err)
	}
	auto := promauto.With(opt.Registry)
	return &Hub{
		log: log, opt: opt, wake: make(chan struct{}, 1), revision: newest, watchers: map[*watcher]struct{}{},
		current: auto.NewGauge(prometheus.GaugeOpts{
			Name: "keysvc_watchers_current", Help: "Open WatchKeys streams.",
		}),
		read: auto.NewCounter(prometheus.CounterOpts{
			Name: "keysvc_watch_events_total", Help: "Events that this process read from the log.",
		}),
		lost: auto.NewCounter(prometheus.CounterOpts{
			Name: "keysvc_watch_lost_watchers_total", Help: "Watchers that were dropped because they were too slow or the log was replaced.",
		}),
		failed: auto.NewCounter(prometheus.CounterOpts{
			Name: "keysvc_watch_failed_reads_total", Help: "Reads of the event log that did not succeed; no heartbeats go out meanwhile.",
		}),
	}, nil
}

// Run reads the log until ctx ends. Call it once.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.listen(ctx) })
	g.Go(func() error { return h.follow(ctx) })
	return g.Wait()
}

// follow reads the log on every wake and every tick, and sends heartbeats.
func (h *Hub) follow(ctx context.Context) error {
	tick := time.NewTicker(h.opt.Poll)
	defer tick.Stop()
	var beat time.Time
	healthy := true
	for {
		start := time.Now()
		err := h.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			h.failed.Inc()
			if healthy {
				h.opt.Log.Error("read events; heartbeats stop", zap.String("error", fault.Cause(err)))
			}
		case start.Add(h.opt.Poll).Sub(beat) >= h.opt.Heartbeat: // after the next pass it would be too late
			h.fanOut(Message{Heartbeat: true, at: start})
			beat = start
		}
		if err == nil && !healthy {
			h.opt.Log.Info("read events again")
		}
		healthy = err == nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-h.wake:
		}
	}
}

// pass hands on everything that is new. When it returns nil, all that was
// committed before it began has been handed on.
func (h *Hub) pass(ctx context.Context) error {
	for {
		events, newest, err := h.log.Events(ctx, h.revision, pageSize)
		if err != nil {
			return err
		}
		if newest < h.revision || gap(events, h.revision, newest) {
			// A restored or lost database, or a process that slept for longer than
			// events are kept: what watchers remember may be wrong.
			h.opt.Log.Error("the event log was replaced; watchers start again",
				zap.Int64("revision", h.revision), zap.Int64("newest", newest))
			h.revision = newest
			h.dropAll(errReplaced)
			return nil
		}
		for _, e := range events {
			h.fanOut(Message{Event: e})
			h.revision = e.Revision
		}
		h.read.Add(float64(len(events)))
		if len(events) < pageSize {
			return nil
		}
	}
}

const (
	firstRetry   = 100 * time.Millisecond
	longestRetry = 5 * time.Second
)

// listen keeps a listener running. The log is polled as well, so a listener
// that is down costs time only.
func (h *Hub) listen(ctx context.Context) error {
	for retry := firstRetry; ; retry = min(2*retry, longestRetry) {
		err := h.log.Listen(ctx, func() {
			retry = firstRetry
			select {
			case h.wake <- struct{}{}:
			default: // it is awake already
			}
		})
		if ctx.Err() != nil {
			return nil //nolint:nilerr // ctx ended: that is why it does not listen any more
		}
		h.opt.Log.Warn("listen for events; polling meanwhile", zap.Error(err), zap.Duration("retry", retry))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}
