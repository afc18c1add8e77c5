package litellm

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Readiness is GET /health/readiness, which needs no credential: whether this
// replica takes requests, and whether it reaches its database. Like LiteLLM with
// allow_requests_on_db_unavailable it is 200 without the database: answers in
// flight still complete, and every replica has lost it alike.
type Readiness struct {
	// Ready says whether the replica can do its work.
	Ready func(ctx context.Context) error
	// Ping asks the database.
	Ping func(ctx context.Context) error
	// Draining is closed when the replica takes no more requests.
	Draining <-chan struct{}

	mu     sync.Mutex
	asked  time.Time
	pinged bool
}

// freshPing is for how long an answer of the database holds: anybody may ask.
const freshPing = time.Second

// ServeHTTP implements http.Handler.
func (h *Readiness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-h.Draining:
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "shutting_down"})
		return
	default:
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := h.Ready(ctx); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "starting"})
		return
	}
	db := "Not connected"
	if h.connected(ctx) {
		db = "connected"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"status": "healthy", "db": db, "cache": nil, "litellm_version": "llm-proxy",
		"success_callbacks": []string{}, "last_updated": stamp(time.Now()),
	})
}

// connected asks the database, at most once a second.
func (h *Readiness) connected(ctx context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.asked) > freshPing {
		// Who asks may go: the answer is for others too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		h.pinged = h.Ping(ctx) == nil
		h.asked = time.Now()
	}
	return h.pinged
}
