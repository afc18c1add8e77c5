package proxy

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Running knows the requests in flight on this replica, so that they can be
// ended when their key or team is stopped. The zero value is not ready; use
// NewRunning.
type Running struct {
	mu     sync.Mutex
	nextID int64
	runs   map[int64]runningRequest
	// stops holds the newest revision at which a key or team was stopped, so
	// that a request that was verified before and comes after is caught.
	stops map[string]int64
	// floor is the revision at which the watch of stops began: what was stopped
	// before it was not told.
	floor int64
	// cutExhausted ends what a team has begun when its credits are used up.
	cutExhausted bool
}

type runningRequest struct {
	key    *Key
	cancel context.CancelCauseFunc
}

// NewRunning makes an empty registry. A team whose credits are used up finishes
// what it has begun, unless cutExhausted says otherwise.
func NewRunning(cutExhausted bool) *Running {
	return &Running{runs: map[int64]runningRequest{}, stops: map[string]int64{}, cutExhausted: cutExhausted}
}

// Add notes a request; remove it when it has ended. It fails when the key or
// its team was stopped after the key was verified, or that cannot be known.
func (r *Running) Add(k *Key, cancel context.CancelCauseFunc) (remove func(), err *Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.stops) > 0 && (r.stops["key:"+k.KeyID] > k.Revision || k.TeamID != "" && r.stops["team:"+k.TeamID] > k.Revision) {
		return nil, errKey()
	}
	if k.Revision < r.floor {
		return nil, errOverloaded(nil)
	}
	r.nextID++
	id := r.nextID
	r.runs[id] = runningRequest{k, cancel}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.runs, id)
	}, nil
}

// maxStops bounds the memory of stops; a key verified long before its stop is
// not in use any more.
const maxStops = 100_000

// Stop ends the requests of keys and teams that were stopped at a revision, but for
// those whose key was verified after it, such as with the new secret of a key that was
// rotated: they may be faster than the watch.
func (r *Running) Stop(keyIDs, teamIDs []string, revision int64, reason string) {
	r.end(keyIDs, teamIDs, revision, reason, func(k *Key) bool { return k.Revision < revision })
}

// End is Stop for all that runs, whenever its key was verified.
func (r *Running) End(keyIDs, teamIDs []string, revision int64, reason string) {
	r.end(keyIDs, teamIDs, revision, reason, func(*Key) bool { return true })
}

func (r *Running) end(keyIDs, teamIDs []string, revision int64, reason string, which func(*Key) bool) {
	for _, cancel := range r.note(keyIDs, teamIDs, revision, reason, which) {
		cancel(&StopError{Reason: reason}) // it closes connections: others need not wait for that
	}
}

// note notes a stop, and says what ends the requests that it ends.
func (r *Running) note(keyIDs, teamIDs []string, revision int64, reason string, which func(*Key) bool) []context.CancelCauseFunc {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.stops) > maxStops {
		clear(r.stops)
	}
	keys, teams := map[string]bool{}, map[string]bool{}
	for _, id := range keyIDs {
		keys[id] = true
		r.stops["key:"+id] = max(r.stops["key:"+id], revision)
	}
	if reason != "exhausted" || r.cutExhausted {
		for _, id := range teamIDs {
			teams[id] = true
			r.stops["team:"+id] = max(r.stops["team:"+id], revision)
		}
	}
	return r.cancels(func(k *Key) bool {
		return (keys[k.KeyID] || k.TeamID != "" && teams[k.TeamID]) && which(k)
	})
}

// cancels are of the requests with such keys. The caller holds mu.
func (r *Running) cancels(of func(*Key) bool) []context.CancelCauseFunc {
	var out []context.CancelCauseFunc
	for _, run := range r.runs {
		if of(run.key) {
			out = append(out, run.cancel)
		}
	}
	return out
}

// From begins anew at a revision: a request whose key was verified before it may
// not be added any more. It returns the keys of those that run, each once: they may
// have been stopped unseen.
func (r *Running) From(revision int64) []*Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.stops) // they may be of a key store that was restored to before them
	r.floor = revision
	return r.keys()
}

// Keys are those of the requests that run, each once.
func (r *Running) Keys() []*Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys()
}

// keys is Keys. The caller holds mu.
func (r *Running) keys() []*Key {
	keys := map[string]*Key{}
	for _, run := range r.runs {
		keys[run.key.Token] = run.key
	}
	return slices.Collect(maps.Values(keys))
}

// Shutdown ends every request that still runs.
func (r *Running) Shutdown() {
	r.mu.Lock()
	all := r.cancels(func(*Key) bool { return true })
	r.mu.Unlock()
	for _, cancel := range all {
		cancel(errShutdown)
	}
}

// Len is the number of requests in flight.
func (r *Running) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.runs)
}
