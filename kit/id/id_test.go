package id

import (
	"strings"
	"testing"
	"time"
)

func TestIDsSortByTimeAndDiffer(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	previous := ""
	for range 1000 {
		got := New("req_", at)
		if len(got) != 30 || !strings.HasPrefix(got, "req_") || got <= previous {
			t.Fatalf("New = %q after %q", got, previous)
		}
		previous, at = got, at.Add(time.Millisecond)
	}
	if New("", at) == New("", at) {
		t.Error("two ids of one millisecond are the same")
	}
}

func TestTheTimeIsTheULIDs(t *testing.T) {
	t.Parallel()
	// The example of the ULID specification: 1469918176385 is 01ARYZ6S41.
	if got := New("", time.UnixMilli(1469918176385)); !strings.HasPrefix(got, "01ARYZ6S41") {
		t.Errorf("New = %s, want 01ARYZ6S41…", got)
	}
}
