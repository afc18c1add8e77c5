package proxy

import (
	"context"
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
}

type runningRequest struct {
	keyID, teamID string
	cancel        context.CancelCauseFunc
}

// NewRunning makes an empty registry.
func NewRunning() *Running {
	return &Running{runs: map[int64]runningRequest{}, stops: map[string]int64{}}
}

// Add notes a request; remove it when it has ended. It fails when the key or
// its team was stopped after the key was verified.
func (r *Running) Add(k *Key, cancel context.CancelCauseFunc) (remove func(), err *Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stops["key:"+k.KeyID] > k.Revision || k.TeamID != "" && r.stops["team:"+k.TeamID] > k.Revision {
		return nil, errKey()
	}
	r.nextID++
	id := r.nextID
	r.runs[id] = runningRequest{k.KeyID, k.TeamID, cancel}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.runs, id)
	}, nil
}

// maxStops bounds the memory of stops; a key verified long before its stop is
// not in use any more.
const maxStops = 100_000

// Stop ends the requests of keys and teams that were stopped at a revision. A
// team whose credits are used up finishes what it has begun.
func (r *Running) Stop(keyIDs, teamIDs []string, revision int64, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.stops) > maxStops {
		clear(r.stops)
	}
	keys, teams := map[string]bool{}, map[string]bool{}
	for _, id := range keyIDs {
		keys[id] = true
		r.stops["key:"+id] = revision
	}
	if reason != "exhausted" {
		for _, id := range teamIDs {
			teams[id] = true
			r.stops["team:"+id] = revision
		}
	}
	for _, run := range r.runs {
		if keys[run.keyID] || run.teamID != "" && teams[run.teamID] {
			run.cancel(&StopError{Reason: reason})
		}
	}
}

// Shutdown ends every request that still runs.
func (r *Running) Shutdown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range r.runs {
		run.cancel(errShutdown)
	}
}

// Len is the number of requests in flight.
func (r *Running) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.runs)
}
