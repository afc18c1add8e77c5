package proxy

import (
	"testing"
	"time"
)

func TestWhatAKeyHasSpentIsAskedForEveryMinute(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	s := &keySpent{}
	s.add(5)
	if _, known := s.of(now); known {
		t.Error("a key that nobody asked for is known by one of its requests")
	}
	s.note(100, now)
	s.add(11)
	now = now.Add(spentFresh - time.Nanosecond)
	if amount, known := s.of(now); !known || amount != 111 {
		t.Errorf("%d, known %t, want what was told and the request since", amount, known)
	}
	if _, known := s.of(now.Add(time.Nanosecond)); known || spentFresh != time.Minute {
		t.Errorf("it is known still after %s", spentFresh)
	}
}
