package relay

import (
	"fmt"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestTheBreakerOpensWhenManyTeamsFail(t *testing.T) {
	t.Parallel()
	var b breaker
	for i := range 9 {
		b.record(noon, fmt.Sprint("team", i%3), true)
	}
	if got := b.limit(noon, 64); got != 64 {
		t.Errorf("limit after 9 failures = %d, want 64", got)
	}
	b.record(noon, "team0", true)
	if got := b.limit(noon, 64); got != 0 || !b.openUntil(noon).Equal(noon.Add(2*time.Second)) {
		t.Errorf("limit after 10 = %d until %s, want 0 for two seconds", got, b.openUntil(noon))
	}
	later := noon.Add(2 * time.Second)
	if got := b.limit(later, 64); got != 1 {
		t.Errorf("limit after the pause = %d, want one probe", got)
	}
	b.record(later, "team1", true)
	if got := b.openUntil(later); !got.Equal(later.Add(4 * time.Second)) {
		t.Errorf("open until %s after a failed probe, want twice as long", got)
	}
	for range 20 {
		later = later.Add(time.Hour)
		b.record(later, "team1", true)
	}
	if got := b.openUntil(later); !got.Equal(later.Add(time.Minute)) {
		t.Errorf("open until %s, want a minute at the most", got)
	}
	later = later.Add(time.Minute)
	b.record(later, "team2", false)
	if got := b.limit(later, 64); got != 64 {
		t.Errorf("limit after a probe that was answered = %d, want 64", got)
	}
}

func TestATeamThatFailsAloneOpensNoBreaker(t *testing.T) {
	t.Parallel()
	var b breaker
	for range 1000 {
		b.record(noon, "noisy", true)
		b.record(noon, "well", false)
	}
	if got := b.limit(noon, 64); got != 64 {
		t.Errorf("limit = %d, want 64", got)
	}
}

func TestTheBucketSpreadsRequests(t *testing.T) {
	t.Parallel()
	now := noon
	b := newBucket(100, func() time.Time { return now })
	var waits []time.Duration
	for range 13 {
		waits = append(waits, b.take())
	}
	if waits[10] != 0 || waits[11] != 10*time.Millisecond || waits[12] != 20*time.Millisecond {
		t.Errorf("waits = %v, want eleven at once and then one each 10 ms", waits)
	}
	now = now.Add(time.Hour)
	if got := b.take(); got != 0 {
		t.Errorf("wait after an hour = %s, want none", got)
	}
	if got := newBucket(0, time.Now).take(); got != 0 {
		t.Errorf("wait without a limit = %s, want none", got)
	}
}

// The answer to a charge that clashed would look like a proof if it were sent
// again, so nothing may make that be forgotten.
func TestThatAChargeClashedIsNotForgottenWhilePostingIsHalted(t *testing.T) {
	t.Parallel()
	s := New(nil, nil, Options{})
	s.halt("the sink refuses our credentials")
	c := Charge{ChargeID: "a", Unsure: true, LastError: clash + "409"}
	if got := s.try(t.Context(), &pass{}, Lease{Charge: c}); got.Outcome != NotApplied || got.Error != c.LastError || !got.idle {
		t.Errorf("try = %+v, want the charge left as it is", got)
	}
}
