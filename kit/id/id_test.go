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
		previous, at = got, at.Add(time.Microsecond)
	}
	if a, b := New("", at), New("", at); a == b {
		t.Error("two ids of one millisecond are the same")
	}
}
