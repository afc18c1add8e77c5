package relay

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Options are what a Service may be given.
type Options struct {
	// Worker names this process in billing's records.
	Worker string
	// Concurrency is how many charges are in flight at once.
	Concurrency int
	// PostRate and ReadRate bound posts and reads a second. Zero: no limit.
	PostRate, ReadRate int
	// Observe is told of every attempt, Read of every balance that was read, and
	// Bought of every top-up. Nil: nobody is.
	Observe func(Attempt)
	Read    func(Reconciled)
	Bought  func(TopUp, Purchase, error)
	// Halted is told when posting stops, and with "" when it goes on. Nil: nobody
	// is.
	Halted func(why string)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Jitter returns a random duration from zero to below d. Nil: a fair one.
	Jitter func(d time.Duration) time.Duration
}

// Attempt is one attempt at a charge, for logs and metrics.
type Attempt struct {
	Charge  Charge
	Verdict Verdict
	Sent    bool  // false: it was decided without posting
	Err     error // why the outcome could not be recorded
}

// Stats are what this process has done since it started.
type Stats struct {
	Outcomes                   map[Outcome]int64
	LastPassAt                 time.Time // zero: none yet
	LastError                  string    // empty: the last pass went well
	SinkConfigured             bool
	HaltReason                 string // empty: nothing stops posting
	HaltedAt                   time.Time
	BreakerOpenUntil           time.Time // zero: the sink is well
	Reconciled, ReadFailures   int64
	Drifts                     int64
	TopUpsPaid, TopUpsDeclined int64
	Undecided                  int64 // charges that only a human can settle, as billing's books had it after the last pass
}

// Service relays charges. Its methods may be called at the same time.
type Service struct {
	billing Billing
	sink    Sink // nil: none is configured
	opt     Options
	turn    chan struct{} // held by the running pass
	nudged  chan struct{}
	now     func() time.Time
	jitter  jitter
	posts   *bucket
	reads   *bucket
	breaker breaker
	unread  atomic.Int64 // balances in a row that could not be read

	mu      sync.Mutex
	stats   Stats
	probeAt time.Time // when a halted sink is asked again
	doubts  map[string]doubt
}

// New makes a service. Without a sink, charges wait.
func New(billing Billing, sink Sink, opt Options) *Service {
	if opt.Observe == nil {
		opt.Observe = func(Attempt) {}
	}
	if opt.Read == nil {
		opt.Read = func(Reconciled) {}
	}
	if opt.Bought == nil {
		opt.Bought = func(TopUp, Purchase, error) {}
	}
	if opt.Halted == nil {
		opt.Halted = func(string) {}
	}
	s := &Service{
		billing: billing, sink: sink, opt: opt, turn: make(chan struct{}, 1), nudged: make(chan struct{}, 1),
		now: time.Now, jitter: randomJitter, doubts: map[string]doubt{},
		stats: Stats{Outcomes: map[Outcome]int64{}},
	}
	if opt.Now != nil {
		s.now = opt.Now
	}
	if opt.Jitter != nil {
		s.jitter = opt.Jitter
	}
	s.posts, s.reads = newBucket(opt.PostRate, s.now), newBucket(opt.ReadRate, s.now)
	return s
}

func (s *Service) configured() bool { return s.sink != nil && s.sink.Configured() }

func errNoSink() error {
	return fault.Errorf(fault.Precondition, "no sink is configured: set AUTUMN_API_KEY or AUTUMN_API_KEY_FILE")
}

// probeEvery is how often a sink that refused us is asked whether it still does.
const probeEvery = time.Minute

// admitted fails while the sink refuses us. After a while, and when it looks
// well again, posting goes on.
func (s *Service) admitted(ctx context.Context) error {
	why, at := s.halted()
	if why != "" && s.now().Before(at) {
		return fault.Errorf(fault.Precondition, "nothing is posted: %s", why)
	}
	err := s.sink.Ready(ctx)
	switch {
	case err == nil:
		s.halt("")
	case fault.KindOf(err) == fault.Precondition:
		s.halt(fault.Text(err))
	}
	return err
}

// halted tells why nothing is posted, and when the sink is asked again.
func (s *Service) halted() (why string, probeAt time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.HaltReason, s.probeAt
}

// halt stops everything that is sent to the sink; with an empty reason it goes
// on.
func (s *Service) halt(why string) {
	s.mu.Lock()
	changed := (why == "") != (s.stats.HaltReason == "")
	if changed {
		s.stats.HaltedAt = time.Time{}
		if why != "" {
			s.stats.HaltedAt = s.now().UTC()
		}
	}
	s.stats.HaltReason, s.probeAt = why, s.now().Add(probeEvery)
	s.mu.Unlock()
	if changed {
		s.opt.Halted(why)
	}
}

// Stats tells what this process has done since it started.
func (s *Service) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Outcomes = maps.Clone(s.stats.Outcomes)
	stats.SinkConfigured = s.configured()
	stats.BreakerOpenUntil = s.breaker.openUntil(s.now())
	return stats
}

func (s *Service) count(t turn) {
	if !t.sent && t.idle {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Outcomes[t.Outcome]++
}

func (s *Service) passed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.LastPassAt, s.stats.LastError = s.now().UTC(), ""
	if err != nil {
		s.stats.LastError = fault.Text(err)
	}
}

func (s *Service) reconciled(r Reconciled) {
	s.mu.Lock()
	switch {
	case r.Err != nil:
		s.stats.ReadFailures++
	default:
		s.stats.Reconciled++
		if !r.Fixed {
			s.stats.Drifts++
		}
	}
	s.mu.Unlock()
	s.opt.Read(r)
}

func (s *Service) bought(t TopUp, p Purchase, err error) {
	s.mu.Lock()
	switch p.Outcome {
	case Paid:
		s.stats.TopUpsPaid++
	case Declined, Rejected:
		s.stats.TopUpsDeclined++
	case NotDone, Unsure:
	}
	s.mu.Unlock()
	s.opt.Bought(t, p, err)
}

// Dead lists charges that the sink refused for good.
func (s *Service) Dead(ctx context.Context, q DeadQuery) ([]DeadCharge, string, error) {
	return s.billing.Dead(ctx, q)
}

// Requeue makes dead charges due again, or tells which it would be.
func (s *Service) Requeue(ctx context.Context, r Requeue) (Requeued, error) {
	return s.billing.Requeue(ctx, r)
}

// Resolve settles a charge by hand, and the team is read soon.
func (s *Service) Resolve(ctx context.Context, r Resolve) (Resolved, error) {
	done, err := s.billing.Resolve(ctx, r)
	if err != nil || r.DryRun {
		return done, err
	}
	_ = s.recount(ctx) // else the next pass does it
	select {
	case s.nudged <- struct{}{}:
	default: // one is noted already
	}
	return done, nil
}

// Pause stops the posting of a team's charges, or of all.
func (s *Service) Pause(ctx context.Context, p Pause) error { return s.billing.Pause(ctx, p) }

// Resume ends a pause, and tells whether there was one.
func (s *Service) Resume(ctx context.Context, p Pause) (bool, error) { return s.billing.Resume(ctx, p) }
