package relay

import (
	"context"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Options are what a Service may be given.
type Options struct {
	// Worker names this process in billing's records.
	Worker string
	// Concurrency is how many charges are in flight at once.
	Concurrency int
	// Observe is told of every attempt. Nil: nobody is.
	Observe func(Attempt)
}

// Attempt is one attempt at a charge, for logs and metrics.
type Attempt struct {
	Charge  Charge
	Verdict Verdict
	Sent    bool  // false: it was decided without asking the sink
	Err     error // why the outcome could not be recorded
}

// Stats are what this process has done since it started.
type Stats struct {
	Outcomes       map[Outcome]int64
	LastPassAt     time.Time // zero: none yet
	LastError      string    // empty: the last pass went well
	SinkConfigured bool
}

// Service relays charges. Its methods may be called at the same time.
type Service struct {
	charges Charges
	sink    Sink // nil: none is configured
	opt     Options
	turn    chan struct{} // held by the running pass
	now     func() time.Time
	jitter  jitter

	mu    sync.Mutex
	stats Stats
}

// New makes a service. Without a sink, charges wait.
func New(charges Charges, sink Sink, opt Options) *Service {
	if opt.Observe == nil {
		opt.Observe = func(Attempt) {}
	}
	return &Service{
		charges: charges, sink: sink, opt: opt, turn: make(chan struct{}, 1),
		now: time.Now, jitter: randomJitter,
		stats: Stats{Outcomes: map[Outcome]int64{}, SinkConfigured: sink != nil},
	}
}

// Stats tells what this process has done since it started.
func (s *Service) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Outcomes = make(map[Outcome]int64, len(s.stats.Outcomes))
	for o, n := range s.stats.Outcomes {
		stats.Outcomes[o] = n
	}
	return stats
}

func (s *Service) count(o Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Outcomes[o]++
}

func (s *Service) passed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.LastPassAt, s.stats.LastError = s.now().UTC(), ""
	if err != nil {
		s.stats.LastError = fault.Text(err)
	}
}

// Dead lists charges that the sink refused for good.
func (s *Service) Dead(ctx context.Context, q DeadQuery) ([]DeadCharge, string, error) {
	return s.charges.Dead(ctx, q)
}

// Requeue makes dead charges due again and returns those that are.
func (s *Service) Requeue(ctx context.Context, chargeIDs []string) ([]string, error) {
	return s.charges.Requeue(ctx, chargeIDs)
}

// SinkBalance reads a team's balance at the sink now.
func (s *Service) SinkBalance(ctx context.Context, teamID string) (Balance, error) {
	if teamID == "" {
		return Balance{}, fault.Errorf(fault.Invalid, "team_id is empty")
	}
	if s.sink == nil {
		return Balance{}, fault.Errorf(fault.Precondition, "no sink is configured: set AUTUMN_API_KEY")
	}
	return s.sink.Balance(ctx, teamID)
}
