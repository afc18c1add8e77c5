package autumn

import (
	"net/http"
	"sync"
	"time"
)

// limit is a group of routes that may be called so often in a span, each
// customer or, for the whole account, together.
type limit struct {
	name  string
	calls int
	span  time.Duration
	all   bool
}

// limitOf is the group of a route. Those that Autumn counts in thousands a second
// have none here.
func limitOf(path string) limit {
	switch canonicalPath(path) {
	case "/v1/events/list", "/v1/events/aggregate", "/v1/events.aggregate":
		return limit{"events", 5, time.Second, false}
	case batchPath:
		return limit{"batch", 10, time.Second, true}
	case "/v1/attach", "/v1/checkout":
		return limit{"billing", 30, time.Minute, false}
	case "/v1/balances/create", "/v1/balances.create":
		return limit{"rest", 25, time.Second, true}
	}
	return limit{}
}

// exclusive names what a request works on that only one may at a time, and what
// the others are told. Empty: there is no such thing.
func (c *call) exclusive() (what string, err error) {
	switch canonicalPath(c.r.URL.Path) {
	case "/v1/attach", "/v1/checkout":
		return "customer " + c.customerID(), errorf(http.StatusTooManyRequests, "rate_limit_exceeded", "Another billing operation of this customer is under way")
	case "/v1/balances.finalize":
		lock, _ := c.body.text("lock_id")
		return "lock " + lock, errorf(http.StatusConflict, "invalid_request", "Lock %s is being finalized already", lock)
	}
	return "", nil
}

// limits count calls in windows that begin with their first call.
type limits struct {
	mu      sync.Mutex
	windows map[string]window
}

type window struct {
	until time.Time
	calls int
}

// take counts a call and says whether it is within its limit.
func (l *limits) take(of limit, customerID string, now time.Time) bool {
	if of.calls == 0 {
		return true
	}
	key := of.name
	if !of.all {
		key += " " + customerID
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.windows[key]
	if !now.Before(w.until) {
		w = window{until: now.Add(of.span)}
	}
	w.calls++
	if l.windows == nil {
		l.windows = map[string]window{}
	}
	l.windows[key] = w
	return w.calls <= of.calls
}
