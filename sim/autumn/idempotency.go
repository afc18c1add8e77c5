package autumn

import (
	"net/http"
	"sync"
	"time"
)

// claims are the idempotency keys that are taken, and until when.
type claims struct {
	mu   sync.Mutex
	keys map[string]time.Time
}

// once runs work under a claim of key, unless that is empty. The scope keeps the
// keys of headers and bodies apart. The claim comes before the work, so that a
// second request is refused while the first still runs; it is let go when work
// fails with anything but a conflict. The first answer is not replayed.
func (s *Server) once(rule Fault, scope, key string, work func() reply) reply {
	if key == "" {
		return work()
	}
	if rule.Fault == FaultKeyStoreDown {
		return work() // it fails open
	}
	key = scope + ":" + key
	now, life := s.now(), s.opts.IdempotencyTTL
	if rule.Fault == FaultKeyLifeCut {
		life = time.Duration(rule.DelayMS) * time.Millisecond
	}
	if !s.claims.take(key, now, now.Add(life)) {
		return s.failure(errorf(http.StatusConflict, "duplicate_idempotency_key",
			"Another request with the same idempotency key has already been received"))
	}
	answer := work()
	if answer.status >= http.StatusBadRequest && answer.status != http.StatusConflict && rule.Fault != FaultReleaseLost {
		s.claims.release(key)
	}
	return answer
}

// take claims key until expires, unless it is claimed now.
func (c *claims) take(key string, now, expires time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until, ok := c.keys[key]; ok && now.Before(until) {
		return false
	}
	if c.keys == nil {
		c.keys = map[string]time.Time{}
	}
	c.keys[key] = expires
	return true
}

func (c *claims) release(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.keys, key)
}

func (c *claims) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.keys)
}
