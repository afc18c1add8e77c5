package relay

import (
	"sync"
	"time"
)

const (
	// window is how many of the newest attempts the breaker looks at, and
	// tooMany how many of them must have failed, for how many teams at least.
	window   = 20
	tooMany  = 10
	severals = 3

	openBase = 2 * time.Second
	openCap  = time.Minute
)

// breaker leaves the sink alone when it is ill, so that a thousand teams do not
// each find out for themselves. While it is open nothing is sent; then single
// probes are, until one is answered. A team that fails alone does not open it.
type breaker struct {
	mu     sync.Mutex
	recent []sample // the newest attempts, oldest first
	opened int      // how often in a row; 0: closed
	until  time.Time
}

type sample struct {
	team string
	ill  bool
}

// limit is how many attempts may be under way, at most most.
func (b *breaker) limit(now time.Time, most int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.opened == 0:
		return most
	case now.Before(b.until):
		return 0
	}
	return 1
}

// openUntil is the end of the pause; zero: there is none.
func (b *breaker) openUntil(now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened == 0 || !now.Before(b.until) {
		return time.Time{}
	}
	return b.until
}

// record takes the outcome of an attempt.
func (b *breaker) record(now time.Time, team string, ill bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened > 0 {
		b.probed(now, ill)
		return
	}
	b.recent = append(b.recent, sample{team, ill})
	if len(b.recent) > window {
		b.recent = b.recent[1:]
	}
	failed, teams := 0, map[string]bool{}
	for _, s := range b.recent {
		if s.ill {
			failed++
			teams[s.team] = true
		}
	}
	if ill && failed >= tooMany && len(teams) >= severals {
		b.open(now)
	}
}

// probed takes the outcome of an attempt while the breaker is open. Those that
// were under way when it opened say nothing new.
func (b *breaker) probed(now time.Time, ill bool) {
	switch {
	case !ill:
		b.opened, b.recent = 0, nil
	case !now.Before(b.until):
		b.open(now)
	}
}

func (b *breaker) open(now time.Time) {
	span := openCap
	if b.opened < 5 { // 2 s × 2^5 is beyond the cap
		span = min(openBase<<b.opened, openCap)
	}
	b.opened++
	b.until = now.Add(span)
}
