package relay

import (
	"math/rand/v2"
	"time"
)

const (
	backoffBase = 2 * time.Second
	backoffCap  = 5 * time.Minute
	// askedCap bounds what a sink may ask us to wait.
	askedCap = time.Hour
	// stubborn is how many attempts at a charge make its team's breaker hold: a
	// team's charges are sent one by one, so that its oldest one stands for it.
	stubborn = 12
)

// jitter returns a random duration from zero to below d.
type jitter func(d time.Duration) time.Duration

func randomJitter(d time.Duration) time.Duration { return rand.N(max(d, 1)) } //nolint:gosec // it spreads load, it keeps no secret

// wait is how long to wait after a number of attempts: full jitter over a range
// that doubles from two seconds to five minutes, for as many days as it takes.
// When the sink asked for a time, that time and a little jitter of its own. A
// team whose charge has failed for long is not asked again at once by chance:
// half the range is certain.
func (j jitter) wait(attempts int, asked time.Duration) time.Duration {
	if asked > 0 {
		return min(asked, askedCap) + j(backoffBase)
	}
	span := backoffCap
	if shift := max(attempts-1, 0); shift < 8 { // 2 s × 2^8 is beyond the cap
		span = min(backoffBase<<shift, backoffCap)
	}
	if attempts > stubborn {
		return span/2 + j(span/2)
	}
	return j(span)
}
