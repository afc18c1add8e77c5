package relay

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

const (
	// readFor is a lease of a team. It is short, since no charge of the team is
	// leased meanwhile, and longer than two reads and a report take.
	readFor   = 45 * time.Second
	readsOnce = 8 // balances that are read at once
	// readAgain is when a team that could not be read is due again at the earliest.
	readAgain = 30 * time.Second
)

// Sighting is a team's balance at the sink, in credits, as decimals.
type Sighting struct {
	// As the sink shows them; it never shows less than 0 left.
	Remaining, Used, Granted string
	// Signed is what is really left.
	Signed    string
	Unlimited bool
	ResetAt   time.Time // end of the cycle; zero: none, or not known
	// Since is when the sink made the customer; zero: it does not say.
	Since time.Time
}

// TeamLease is the right to report a team's balance, once.
type TeamLease struct {
	TeamID   string
	Token    int64
	Doubtful []Charge // charges that may be applied
}

// Report is what was found out of a leased team.
type Report struct {
	TeamID    string
	Token     int64
	NoBalance bool
	Sighting  Sighting
	At        time.Time
	Found     []string // doubtful charges that the sink's list of events has
}

// Finding is what billing makes of a report.
type Finding struct {
	TeamID, ID, Class, Detail      string
	Fixed                          bool
	DriftNanoUSD, UsageDrift, Used money.NanoUSD
	CustomerSince                  time.Time // of the sighting
}

// Books is the part of billing that compares the sink with its books.
type Books interface {
	// Nudge makes a team due.
	Nudge(ctx context.Context, teamID, cause string) error
	LeaseTeams(ctx context.Context, worker string, teams []string, limit int, hold time.Duration) ([]TeamLease, error)
	Report(ctx context.Context, r Report) (Finding, error)
	// Release gives back a team that could not be read. It is due again after a
	// while.
	Release(ctx context.Context, l TeamLease, after time.Duration) error
	// Rebased says whether the books of the team's usage began anew since an
	// instant: with a first report, a cycle or a drift that was accepted.
	Rebased(ctx context.Context, teamID string, since time.Time) (bool, error)
}

// Reconciled is what became of a team in a pass.
type Reconciled struct {
	Finding
	Err error // why it could not be read or reported
}

// Reconcile reads balances at the sink and reports them: of the teams that are
// named, or of those that are due, until none is. Nothing is read while the sink
// is left alone or refuses us.
func (s *Service) Reconcile(ctx context.Context, teams []string) ([]Reconciled, error) {
	if !s.configured() {
		return nil, s.needSink(teams)
	}
	if why, _ := s.halted(); why != "" {
		return nil, fault.Errorf(fault.Precondition, "nothing is read: %s", why)
	}
	if until := s.breaker.openUntil(s.now()); !until.IsZero() {
		return nil, fault.Errorf(fault.Unavailable, "the sink is left alone until %s", until.UTC().Format(time.RFC3339))
	}
	var all []Reconciled
	for ctx.Err() == nil {
		leases, err := s.billing.LeaseTeams(ctx, s.opt.Worker, teams, max(readsOnce, len(teams)), readFor)
		if err != nil {
			return all, fmt.Errorf("lease teams: %w", err)
		}
		done := s.reconcileAll(ctx, leases)
		all = append(all, done...)
		if len(leases) == 0 || len(teams) > 0 || failedAll(done) {
			return all, nil
		}
	}
	return all, ctx.Err()
}

// needSink is no error of a pass that only looks whether something is due.
func (s *Service) needSink(teams []string) error {
	if len(teams) == 0 {
		return nil
	}
	return errNoSink()
}

func failedAll(done []Reconciled) bool {
	for _, r := range done {
		if r.Err == nil {
			return false
		}
	}
	return true
}

func (s *Service) reconcileAll(ctx context.Context, leases []TeamLease) []Reconciled {
	done := make([]Reconciled, len(leases))
	var g errgroup.Group
	g.SetLimit(readsOnce)
	for i, l := range leases {
		g.Go(func() error {
			done[i] = s.reconcileTeam(ctx, l)
			return nil
		})
	}
	g.Wait() //nolint:errcheck // the errors are in done: one must not end the others
	return done
}

// reconcileTeam reads and reports one leased team, with what the sink's list of
// events knows of its charges in doubt.
func (s *Service) reconcileTeam(ctx context.Context, l TeamLease) Reconciled {
	var found []string
	for _, c := range l.Doubtful {
		// That the list cannot be read only means that it proves nothing.
		if applied, held, err := s.held(ctx, c); err == nil && held && applied == c.AmountNanoUSD {
			found = append(found, c.ChargeID)
		}
	}
	f, err := s.report(ctx, l, found)
	r := Reconciled{Finding: f, Err: err}
	r.TeamID = l.TeamID
	s.reconciled(r)
	return r
}

func (s *Service) held(ctx context.Context, c Charge) (money.NanoUSD, bool, error) {
	if err := s.reads.wait(ctx); err != nil {
		return 0, false, err
	}
	return s.sink.Held(ctx, c)
}

// report reads a leased team's balance and reports it. When it cannot, the team is
// given back at once, and the longer nothing can be read the later it is due again:
// charges do not wait for reads that fail.
func (s *Service) report(ctx context.Context, l TeamLease, found []string) (Finding, error) {
	f, err := s.readAndReport(ctx, l, found)
	if err == nil {
		s.unread.Store(0)
		return f, nil
	}
	wait := max(readAgain, s.jitter.wait(int(s.unread.Add(1)), 0))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_ = s.billing.Release(ctx, l, wait) // else the lease ends by itself
	return f, err
}

func (s *Service) readAndReport(ctx context.Context, l TeamLease, found []string) (Finding, error) {
	if err := s.reads.wait(ctx); err != nil {
		return Finding{}, err
	}
	r := Report{TeamID: l.TeamID, Token: l.Token, At: s.now(), Found: found}
	sight, err := s.sink.Sight(ctx, l.TeamID)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		r.NoBalance = true
	case err != nil:
		return Finding{}, fmt.Errorf("read balance: %w", err)
	default:
		r.Sighting = sight
	}
	f, err := s.billing.Report(ctx, r)
	if err != nil {
		return Finding{}, fmt.Errorf("report balance: %w", err)
	}
	f.TeamID, f.CustomerSince = l.TeamID, r.Sighting.Since
	return f, nil
}

// Nudge says that something happened to a team at the sink. The team is read
// soon; nothing else follows from it.
func (s *Service) Nudge(ctx context.Context, teamID, cause string) error {
	if teamID == "" || len(teamID) > 200 {
		return fault.Errorf(fault.Invalid, "team_id is empty or longer than 200 bytes")
	}
	if err := s.billing.Nudge(ctx, teamID, cause); err != nil {
		return err
	}
	select {
	case s.nudged <- struct{}{}:
	default: // one is noted already
	}
	return nil
}

// Nudged is told of nudges, so that a loop need not wait for its next tick.
func (s *Service) Nudged() <-chan struct{} { return s.nudged }

// SinkBalance reads a team's balance at the sink now.
func (s *Service) SinkBalance(ctx context.Context, teamID string) (Sighting, error) {
	if teamID == "" {
		return Sighting{}, fault.Errorf(fault.Invalid, "team_id is empty")
	}
	if !s.configured() {
		return Sighting{}, errNoSink()
	}
	if err := s.reads.wait(ctx); err != nil {
		return Sighting{}, err
	}
	return s.sink.Sight(ctx, teamID)
}

// ReconcileNow is Reconcile for a person, who wants to hear of each team that
// was named.
func (s *Service) ReconcileNow(ctx context.Context, teams []string) ([]Reconciled, error) {
	done, err := s.Reconcile(ctx, teams)
	if err != nil {
		return done, err
	}
	seen := map[string]bool{}
	for _, r := range done {
		seen[r.TeamID] = true
	}
	for _, t := range teams {
		if !seen[t] {
			done = append(done, Reconciled{
				Finding: Finding{TeamID: t},
				Err:     fault.Errorf(fault.NotFound, "billing does not know the team, or it is being read by another worker"),
			})
		}
	}
	return done, nil
}
