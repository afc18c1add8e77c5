package proxy

import (
	"testing"
	"time"
)

func TestWhatAKeyHasSpentIsAskedForEveryMinute(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	s := &spent{now: func() time.Time { return now }, keys: map[string]spentKey{}}
	if _, known := s.of("k", now); known {
		t.Error("a key that nobody asked for is known")
	}
	s.note("k", 100)
	s.add("k", 11)
	s.add("other", 5) // it is not known, so neither is its sum
	now = now.Add(spentFresh - time.Nanosecond)
	if amount, known := s.of("k", now); !known || amount != 111 {
		t.Errorf("%d, known %t, want what was told and the request since", amount, known)
	}
	if _, known := s.of("k", now.Add(time.Nanosecond)); known || spentFresh != time.Minute {
		t.Errorf("it is known still after %s", spentFresh)
	}
	if _, known := s.of("other", now); known {
		t.Error("a key is known by one of its requests")
	}
}
