package proxy

import (
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// keySpent knows what a key without limits has spent, to say it to its clients.
// Of a key with limits the ledger says so itself, exactly; here, what other
// replicas spend shows up within a minute: the ledger is asked again with an
// admission of the key. LiteLLM keeps what it knows of a key as long.
type keySpent struct {
	amount atomic.Int64 // nano-dollars
	readAt atomic.Int64 // Unix time in nanoseconds; 0: never
}

const spentFresh = time.Minute

// of returns what the key has spent; not known: the ledger must be asked.
func (s *keySpent) of(now time.Time) (amount money.NanoUSD, known bool) {
	if at := s.readAt.Load(); at == 0 || now.UnixNano()-at >= int64(spentFresh) {
		return 0, false
	}
	return money.NanoUSD(s.amount.Load()), true
}

// note notes what the ledger says.
func (s *keySpent) note(amount money.NanoUSD, now time.Time) {
	s.amount.Store(int64(amount))
	s.readAt.Store(now.UnixNano())
}

// add notes what a request of the key cost.
func (s *keySpent) add(cost money.NanoUSD) { s.amount.Add(int64(cost)) }
