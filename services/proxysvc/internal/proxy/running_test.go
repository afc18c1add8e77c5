package proxy

import (
	"context"
	"errors"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/leash"
)

// TestAStopEndsWhatWasVerifiedBeforeIt rotates a key: what runs with the old secret ends,
// what runs with the new one goes on, and what was verified before and comes late is
// refused.
func TestAStopEndsWhatWasVerifiedBeforeIt(t *testing.T) {
	t.Parallel()
	r := NewRunning(false)
	run := func(k *Key) (context.Context, *Error) {
		life := &leash.Leash{}
		ctx := life.Begin(t.Context())
		return ctx, r.Add(k, life)
	}
	before, err := run(&Key{KeyID: "k", TeamID: "t", Token: "old", Revision: 6})
	if err != nil {
		t.Fatal(err)
	}
	after, err := run(&Key{KeyID: "k", TeamID: "t", Token: "new", Revision: 7}) // it was faster than the watch
	if err != nil {
		t.Fatal(err)
	}
	r.Stop([]string{"k"}, nil, 7, Revoked)
	if stop, ok := errors.AsType[*StopError](leash.Cause(before)); !ok || stop.Reason != Revoked {
		t.Errorf("with the old secret: %v, want it stopped", leash.Cause(before))
	}
	if after.Err() != nil {
		t.Errorf("with the new secret: %v, want it to go on", leash.Cause(after))
	}
	if _, err := run(&Key{KeyID: "k", TeamID: "t", Token: "old", Revision: 6}); err == nil {
		t.Error("late with the old secret: let in")
	}
	r.Stop(nil, []string{"t"}, 7, "suspended")
	if after.Err() != nil {
		t.Errorf("verified when its team was stopped already: %v, want it to go on", leash.Cause(after))
	}
	r.End(nil, []string{"t"}, 7, "suspended")
	if stop, ok := errors.AsType[*StopError](leash.Cause(after)); !ok || stop.Reason != "suspended" {
		t.Errorf("ended: %v, want it stopped", leash.Cause(after))
	}
}

// TestWhatHasEndedIsNotKnown adds two requests and removes one.
func TestWhatHasEndedIsNotKnown(t *testing.T) {
	t.Parallel()
	r := NewRunning(false)
	var gone, runs leash.Leash
	for life, k := range map[*leash.Leash]*Key{&gone: {KeyID: "gone", Token: "gone"}, &runs: {KeyID: "runs", Token: "runs"}} {
		life.Begin(t.Context())
		if err := r.Add(k, life); err != nil {
			t.Fatal(err)
		}
	}
	r.Remove(&gone)
	if keys := r.Keys(); r.Len() != 1 || len(keys) != 1 || keys[0].KeyID != "runs" {
		t.Errorf("%d run, with the keys %v, want the one that was not removed", r.Len(), keys)
	}
	r.Shutdown()
	if gone.Err() != nil || !errors.Is(runs.Cause(), errShutdown) {
		t.Errorf("at the end: %v and %v, want only what runs to be ended", gone.Cause(), runs.Cause())
	}
}
