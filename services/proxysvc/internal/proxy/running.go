package proxy

import (
	"maps"
	"slices"
	"sync"

	"github.com/proliferate-ai/llm-proxy/kit/leash"
)

// Running knows the requests in flight on this replica, so that they can be
// ended when their key or team is stopped. The zero value is not ready; use
// NewRunning.
type Running struct {
	mu   sync.Mutex
	runs map[*leash.Leash]*Key // by what ends them
	// stops holds the newest revision at which a key or team was stopped, so
	// that a request that was verified before and comes after is caught.
	stops map[string]int64
	// floor is the revision at which the watch of stops began: what was stopped
	// before it was not told.
	floor int64
	// cutExhausted ends what a team has begun when its credits are used up.
	cutExhausted bool
}

// NewRunning makes an empty registry. A team whose credits are used up finishes
// what it has begun, unless cutExhausted says otherwise.
func NewRunning(cutExhausted bool) *Running {
	return &Running{runs: map[*leash.Leash]*Key{}, stops: map[string]int64{}, cutExhausted: cutExhausted}
}

// Add notes a request by what ends it; Remove it when it has ended. It fails when the
// key or its team was stopped after the key was verified, or that cannot be known.
func (r *Running) Add(k *Key, life *leash.Leash) *Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.stops) > 0 && (r.stops["key:"+k.KeyID] > k.Revision || k.TeamID != "" && r.stops["team:"+k.TeamID] > k.Revision) {
		return errKey()
	}
	if k.Revision < r.floor {
		return errOverloaded(nil)
	}
	r.runs[life] = k
	return nil
}

// Remove forgets a request.
func (r *Running) Remove(life *leash.Leash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runs, life)
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
	for _, life := range r.note(keyIDs, teamIDs, revision, reason, which) {
		life.End(&StopError{Reason: reason}) // it closes connections: others need not wait for that
	}
}

// note notes a stop, and returns the requests that it ends.
func (r *Running) note(keyIDs, teamIDs []string, revision int64, reason string, which func(*Key) bool) []*leash.Leash {
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
	return r.of(func(k *Key) bool {
		return (keys[k.KeyID] || k.TeamID != "" && teams[k.TeamID]) && which(k)
	})
}

// of are the requests with such keys. The caller holds mu.
func (r *Running) of(which func(*Key) bool) []*leash.Leash {
	var out []*leash.Leash
	for life, k := range r.runs {
		if which(k) {
			out = append(out, life)
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
	for _, k := range r.runs {
		keys[k.Token] = k
	}
	return slices.Collect(maps.Values(keys))
}

// Shutdown ends every request that still runs.
func (r *Running) Shutdown() {
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.runs))
	r.mu.Unlock()
	for _, life := range all {
		life.End(errShutdown)
	}
}

// Len is the number of requests in flight.
func (r *Running) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.runs)
}
