package proxy

import (
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// spent knows what keys without limits have spent, to say it to their clients.
// Of a key with limits the ledger says so itself, exactly; here, what other
// replicas spend shows up within a minute: the ledger is asked again with an
// admission of the key. LiteLLM keeps what it knows of a key as long.
type spent struct {
	now func() time.Time

	mu   sync.Mutex
	keys map[string]spentKey
}

type spentKey struct {
	amount money.NanoUSD
	readAt time.Time
}

const (
	spentFresh = time.Minute
	maxSpent   = 100_000
)

// of returns what the key has spent; not known: the ledger must be asked.
func (s *spent) of(keyID string, now time.Time) (amount money.NanoUSD, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.keys[keyID]; ok && now.Sub(k.readAt) < spentFresh {
		return k.amount, true
	}
	return 0, false
}

// note notes what the ledger says.
func (s *spent) note(keyID string, amount money.NanoUSD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) >= maxSpent {
		clear(s.keys)
	}
	s.keys[keyID] = spentKey{amount, s.now()}
}

// add notes what a request of the key cost.
func (s *spent) add(keyID string, cost money.NanoUSD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.keys[keyID]; ok {
		k.amount += cost
		s.keys[keyID] = k
	}
}
