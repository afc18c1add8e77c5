package proxy

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestASilenceEndsAnAttempt has bytes come, or not, on a clock of its own.
func TestASilenceEndsAnAttempt(t *testing.T) {
	t.Parallel()
	const idle = 4 * time.Minute
	for name, tt := range map[string]struct {
		signs       []time.Duration // pauses before each
		least, most time.Duration   // until it ends, from the last sign
	}{
		"from the beginning":     {nil, idle, idle},
		"after a first byte":     {[]time.Duration{time.Minute + 1}, idle, idle + idle/looks},
		"after long pauses":      {[]time.Duration{idle - 1, idle - 1, idle - 1}, idle, idle + idle/looks},
		"after many short ones":  {[]time.Duration{1, 1, 1, time.Second, time.Hour / 60, 1}, idle, idle + idle/looks},
		"after one at each look": {[]time.Duration{idle / looks, idle / looks, idle / looks}, idle, idle + idle/looks},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := &attempt{}
				o := &outbound{now: a}
				a.life.Begin(t.Context())
				a.watch(idle)
				for _, pause := range tt.signs {
					<-time.After(pause)
					if a.life.Cause() != nil {
						t.Fatalf("it ended in a pause of %v: %v", pause, a.life.Cause())
					}
					o.alive()
				}
				last := time.Now()
				<-a.life.Done()
				if took := time.Since(last); took < tt.least || took > tt.most || !errors.Is(a.life.Cause(), errIdle) {
					t.Errorf("it ended %v after the last sign, want %v to %v: %v", took, tt.least, tt.most, a.life.Cause())
				}
			})
		})
	}
}
