package proxy

import (
	"sync"
	"time"
)

// Condition is how fit a deployment is for the next request, fittest first.
type Condition int

// The conditions.
const (
	Healthy   Condition = iota
	Cooling             // it failed too often, or said when to come again
	Withdrawn           // it refused our credential
	Full                // its requests or tokens of this minute are used up
)

// withdrawal is how long a deployment that refused our credential gets no
// request that another one can take. Then one finds out whether that has passed.
const withdrawal = 5 * time.Minute

// health is the state of one deployment on this replica. It is kept while the
// routing changes, as long as the deployment and its key stay the same.
type health struct {
	mu        sync.Mutex
	coolUntil time.Time
	withdrawn time.Time // until then
	fails     int       // since failsFrom
	failsFrom time.Time
	minute    time.Time // the one that requests and tokens are of
	requests  int64
	tokens    int64
}

// condition judges the deployment at an instant. For one that is full, until is
// when it no longer is.
func (h *health) condition(d *Deployment, now time.Time) (c Condition, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(now)
	switch {
	case d.RPM > 0 && h.requests >= d.RPM, d.TPM > 0 && h.tokens >= d.TPM:
		return Full, h.minute.Add(time.Minute)
	case now.Before(h.withdrawn):
		return Withdrawn, h.withdrawn
	case now.Before(h.coolUntil):
		return Cooling, h.coolUntil
	}
	return Healthy, time.Time{}
}

// turn begins a new minute when the last one is over.
func (h *health) turn(now time.Time) {
	if m := now.Truncate(time.Minute); !m.Equal(h.minute) {
		h.minute, h.requests, h.tokens = m, 0, 0
	}
}

// begin counts a request.
func (h *health) begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(now)
	h.requests++
}

// use counts the tokens of an answer.
func (h *health) use(tokens int64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(now)
	h.tokens += tokens
}

// good notes an answer: whatever was wrong has passed.
func (h *health) good() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fails, h.coolUntil, h.withdrawn = 0, time.Time{}, time.Time{}
}

// cool keeps requests away for a time.
func (h *health) cool(d time.Duration, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := now.Add(d); until.After(h.coolUntil) {
		h.coolUntil = until
	}
}

// fail notes a failure; more than `allowed` in a minute let the deployment cool.
func (h *health) fail(allowed int, cooldown time.Duration, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.failsFrom) > time.Minute {
		h.fails, h.failsFrom = 0, now
	}
	if h.fails++; h.fails > allowed {
		h.coolUntil = now.Add(cooldown)
	}
}

// withdraw notes that our credential was refused.
func (h *health) withdraw(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.withdrawn = now.Add(withdrawal)
}
