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
	for name, signs := range map[string][]time.Duration{ // pauses before each
		"from the beginning":     nil,
		"after a first byte":     {time.Minute + 1},
		"after long pauses":      {idle - 1, idle - 1, idle - 1},
		"after many short ones":  {1, 1, 1, time.Second, time.Hour / 60, 1},
		"after one at each look": {idle / looks, idle / looks, idle / looks},
	} {
		for when, before := range map[string]time.Duration{"alone": 0, "among others": idle / looks / 3} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &Service{silence: patience{most: idle, cause: errIdle}}
					var other waiting
					if before > 0 { // so that looks are not in step with this one's bytes
						s.silence.begin(t.Context(), &other)
						<-time.After(before)
					}
					o := &outbound{s: s, now: &attempt{}}
					a := o.now
					s.silence.begin(t.Context(), &a.waiting)
					for _, pause := range signs {
						<-time.After(pause)
						if a.life.Cause() != nil {
							t.Fatalf("it ended in a pause of %v: %v", pause, a.life.Cause())
						}
						o.alive()
					}
					last := time.Now()
					<-a.life.Done()
					if took := time.Since(last); took < idle || took > idle+idle/looks || !errors.Is(a.life.Cause(), errIdle) {
						t.Errorf("it ended %v after the last sign, want %v to a quarter more: %v", took, idle, a.life.Cause())
					}
				})
			})
		}
	}
}

// TestWhatHasEndedIsWaitedForNoLonger has some of what waits end in every order, and one
// begin when nothing waits any more.
func TestWhatHasEndedIsWaitedForNoLonger(t *testing.T) {
	t.Parallel()
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			p := patience{most: time.Minute, cause: errIdle}
			all := make([]waiting, 3)
			for i := range all {
				p.begin(t.Context(), &all[i])
			}
			for n, i := range order {
				if n == 2 {
					<-time.After(time.Hour) // this one takes too long
				}
				p.end(&all[i])
				p.end(&all[i]) // once more is no harm
			}
			if p.first != nil {
				t.Errorf("%v: something is waited for that has ended", order)
			}
			for n, i := range order {
				if late := all[i].life.Cause() != nil; late != (n == 2) {
					t.Errorf("%v: %d was ended: %t", order, i, late)
				}
			}
			var next waiting
			p.begin(t.Context(), &next)
			<-next.life.Done()
		})
	}
}
