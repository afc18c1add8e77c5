package relay

import (
	"context"
	"sync"
	"time"
)

// bucket spreads requests: rate a second in the long run, a tenth of a second's
// worth at once. It is fair in that who asks first goes first.
type bucket struct {
	mu   sync.Mutex
	gap  time.Duration // between two; zero: no limit
	free time.Time     // when the next one may go
	now  func() time.Time
}

func newBucket(rate int, now func() time.Time) *bucket {
	b := &bucket{now: now}
	if rate > 0 {
		b.gap = time.Second / time.Duration(rate)
	}
	return b
}

// take books the next place and returns how long it is until then.
func (b *bucket) take() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gap == 0 {
		return 0
	}
	now := b.now()
	const burst = 100 * time.Millisecond
	if earliest := now.Add(-burst); b.free.Before(earliest) {
		b.free = earliest
	}
	wait := b.free.Sub(now)
	b.free = b.free.Add(b.gap)
	return max(wait, 0)
}

// wait lasts until the next place, or until ctx ends.
func (b *bucket) wait(ctx context.Context) error {
	d := b.take()
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
