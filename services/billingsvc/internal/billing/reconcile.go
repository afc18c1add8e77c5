package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Kinds of grants.
const (
	GrantTrial    = "trial"
	GrantAccepted = "accepted"
)

// Reconciliation is one comparison of the sink with the books. It is never
// edited.
type Reconciliation struct {
	ReconciliationID       string
	TeamID                 string
	LeaseToken             int64
	SinkBalanceNanoUSD     money.NanoUSD
	SinkUsageNanoUSD       money.NanoUSD
	ExpectedBalanceNanoUSD money.NanoUSD
	ExpectedUsageNanoUSD   money.NanoUSD
	PostedNanoUSD          money.NanoUSD // that the sighting holds
	UnconfirmedNanoUSD     money.NanoUSD
	DriftNanoUSD           money.NanoUSD
	UsageDriftNanoUSD      money.NanoUSD
	Class                  Class
	Fixed                  bool
	Alarm                  bool
	ChargeIDs              []string
	Detail                 string
	ShadowBeforeNanoUSD    money.NanoUSD
	ShadowAfterNanoUSD     money.NanoUSD
	ObservedAt             time.Time
	CreatedAt              time.Time
}

// ReconcileRules are what the configuration decides of reconciliations.
type ReconcileRules struct {
	Every      time.Duration // between two of a team that is well
	EveryShut  time.Duration // of a team in grace or exhausted: a top-up opens it
	EveryDoubt time.Duration // of a team with charges in doubt
	// A drift alarms above AlarmAbove, and above AlarmPerMille of what the team
	// was billed.
	AlarmAbove    money.NanoUSD
	AlarmPerMille int64
}

// ReconcileLease is the right to report a team's balance, once.
type ReconcileLease struct {
	TeamID    string
	Token     int64
	ExpiresAt time.Time
	Doubtful  []Charge
}

// ReconcileQuery asks for teams to be read at the sink.
type ReconcileQuery struct {
	Teams      []string // these, due or not; empty: those that are due
	Max        int
	Now, Until time.Time
}

// Report is what a worker found out of a leased team.
type Report struct {
	TeamID string
	Token  int64
	Sighting
}

// Release gives back a leased team whose balance could not be read.
type Release struct {
	TeamID string
	Token  int64
	DueAt  time.Time // not before this is the team read again, unless somebody asks
}

// Verdict is what a report comes to; it is what the store writes.
type Verdict struct {
	Reconciliation Reconciliation
	Balance        Balance
	Grant          *Grant
	Transition     *Transition
	Confirmed      []Charge
	// Rebase: the books of the sink's usage begin with this sighting. Then Doubt
	// are the charges that may be in it.
	Rebase     bool
	BasePosted money.NanoUSD
	Doubt      []string
	// BaseHeld are charges that the beginning of the books held already: what
	// was used by then was less by BaseShift.
	BaseHeld  []string
	BaseShift money.NanoUSD
	ResetAt   *time.Time
	DueAt     time.Time // the next one
}

// Reconciler is where reconciliations are handed out and written.
type Reconciler interface {
	// Nudge makes a team due at now, and known if it is not.
	Nudge(ctx context.Context, teamID string, now time.Time) (known bool, err error)
	LeaseReconciliations(ctx context.Context, q ReconcileQuery) ([]ReconcileLease, error)
	// Release ends a lease without a report, so that the team's charges go on.
	// Conflict when it is another's, or was reported.
	Release(ctx context.Context, r Release) error
	// Reported locks a leased team, has decide judge and writes its verdict. A
	// report that is recorded already is returned as it is, with the balance of
	// now. Conflict when the lease is another's.
	Reported(ctx context.Context, r Report, now time.Time, decide func(Standing) Verdict) (Reconciliation, Balance, error)
	// AcceptDrift locks a team and begins its books with its newest
	// reconciliation, as decide says. Conflict when that is not the one named.
	AcceptDrift(ctx context.Context, teamID, reconciliationID string, op Operation, decide func(Standing, Reconciliation) Verdict) (Balance, error)
}

// Nudge says that a team's balance at the sink may have changed.
func (s *Service) Nudge(ctx context.Context, teamID string) (known bool, err error) {
	if err := checkTeam(teamID); err != nil {
		return false, err
	}
	return s.store.Nudge(ctx, teamID, s.now())
}

// LeaseReconciliations hands out teams whose balance has to be read.
func (s *Service) LeaseReconciliations(ctx context.Context, worker string, teams []string, limit int, hold time.Duration) ([]ReconcileLease, error) {
	if err := checkLease(worker, limit, hold); err != nil {
		return nil, err
	}
	if len(teams) > 100 {
		return nil, fault.Errorf(fault.Invalid, "team_ids has more than 100")
	}
	for _, t := range teams {
		if err := checkTeam(t); err != nil {
			return nil, err
		}
	}
	now := s.now()
	return s.store.LeaseReconciliations(ctx, ReconcileQuery{Teams: teams, Max: limit, Now: now, Until: now.Add(hold)})
}

// Release gives back a leased team whose balance could not be read; after a while it
// is due again.
func (s *Service) Release(ctx context.Context, teamID string, token int64, after time.Duration) error {
	if err := checkTeam(teamID); err != nil {
		return err
	}
	if token <= 0 {
		return fault.Errorf(fault.Invalid, "lease_token is not the token of a lease")
	}
	return s.store.Release(ctx, Release{TeamID: teamID, Token: token, DueAt: s.now().Add(after)})
}

// Report judges what the sink says of a team, puts right what is proved, and
// moves the gate.
func (s *Service) Report(ctx context.Context, r Report) (Reconciliation, Balance, error) {
	if err := checkTeam(r.TeamID); err != nil {
		return Reconciliation{}, Balance{}, err
	}
	if r.Token <= 0 {
		return Reconciliation{}, Balance{}, fault.Errorf(fault.Invalid, "lease_token is not the token of a lease")
	}
	now := s.now()
	if r.ObservedAt.IsZero() {
		r.ObservedAt = now
	}
	rec, b, err := s.store.Reported(ctx, r, now, func(st Standing) Verdict { return s.judge(st, r, now) })
	if err != nil {
		return Reconciliation{}, Balance{}, err
	}
	if rec.CreatedAt.Equal(now) { // not one that was recorded before
		s.observe(rec)
	}
	s.wake()
	return rec, b, nil
}

// judge compares and says what is to be written.
func (s *Service) judge(st Standing, r Report, now time.Time) Verdict {
	v := Verdict{ResetAt: r.ResetAt}
	st.confirmFound(&v, r.Found, now)
	f := st.Compare(r.Sighting)
	before := st.Balance
	v.Reconciliation = Reconciliation{
		ReconciliationID: newUUID(now), TeamID: r.TeamID, LeaseToken: r.Token,
		SinkBalanceNanoUSD: r.Balance, SinkUsageNanoUSD: r.Usage,
		ExpectedBalanceNanoUSD: st.expectedBalance(), ExpectedUsageNanoUSD: st.expectedUsage(),
		PostedNanoUSD: st.basePosted(), UnconfirmedNanoUSD: before.Unconfirmed(),
		DriftNanoUSD: f.Drift, UsageDriftNanoUSD: f.UsageDrift, Class: f.Class, Fixed: f.Fixed, Detail: f.Detail,
		ChargeIDs: ids(append(f.Explains, v.Confirmed...)), ShadowBeforeNanoUSD: before.Shadow(), ObservedAt: r.ObservedAt, CreatedAt: now,
	}
	v.Reconciliation.Alarm = !f.Fixed && s.reconcile.alarms(f.Unresolved, before.BilledNanoUSD)
	v.confirm(&st, f.Confirm, f.ProofConfirm, now)
	b := st.Balance
	if !r.NoBalance {
		v.grant(&b, f, now)
		b.Basis, b.Unlimited = PlanBasis, r.Unlimited
	}
	b.OpenDriftNanoUSD = f.Unresolved
	if t, ok := s.rules.Policy.Move(&b, CauseReport, string(f.Class), now); ok {
		v.Transition = &t
	}
	v.Reconciliation.ShadowAfterNanoUSD = b.Shadow()
	v.Balance, v.Rebase, v.BasePosted, v.Doubt = b, f.Rebase, st.basePosted(), ids(append(st.Doubt, st.Late...))
	v.BaseHeld, v.BaseShift = ids(f.BaseHeld), applied(f.BaseHeld)
	v.DueAt = now.Add(s.reconcile.next(b, len(st.Doubt)-len(f.Confirm) > 0, r.NoBalance))
	return v
}

// confirmFound settles the doubtful charges that the sink's list of events has:
// to be in it is a proof, though not to be in it is none.
func (b *Standing) confirmFound(v *Verdict, found []string, now time.Time) {
	var proved []Charge
	for _, c := range b.Doubt {
		for _, id := range found {
			if c.ChargeID == id && c.LeaseUntil == nil {
				proved = append(proved, c)
			}
		}
	}
	v.confirm(b, proved, ProofEventsList, now)
}

// confirm settles charges as applied.
func (v *Verdict) confirm(b *Standing, charges []Charge, proof string, now time.Time) {
	for _, c := range charges {
		c = c.Lapse() // else a late outcome could still be recorded
		c.State, c.Proof, c.SettledAt = Posted, proof, &now
		v.Confirmed = append(v.Confirmed, c)
		b.Balance.PostedNanoUSD += c.AmountNanoUSD
		for i := range b.Doubt {
			if b.Doubt[i].ChargeID == c.ChargeID {
				b.Doubt = append(b.Doubt[:i:i], b.Doubt[i+1:]...)
				break
			}
		}
	}
}

// grant moves what was granted. A trial ends where a plan begins: its credits
// are part of the plan or are none.
func (v *Verdict) grant(b *Balance, f Finding, now time.Time) {
	if f.Grant == 0 {
		return
	}
	b.GrantedNanoUSD += f.Grant
	kind := string(f.Class)
	if f.Class != ClassBaseline && f.Class != ClassReset {
		kind = string(ClassGrant)
		if f.Grant < 0 {
			kind = string(ClassGrantRemoved)
		}
	}
	v.Grant = &Grant{
		GrantID: newUUID(now), TeamID: b.TeamID, Kind: kind, AmountNanoUSD: f.Grant,
		ReconciliationID: v.Reconciliation.ReconciliationID, CreatedAt: now,
	}
}

func (r ReconcileRules) alarms(drift, billed money.NanoUSD) bool {
	return abs(drift) > r.AlarmAbove && abs(drift) > abs(billed)/1000*money.NanoUSD(r.AlarmPerMille)
}

// next is when the team has to be read again.
func (r ReconcileRules) next(b Balance, doubt, noBalance bool) time.Duration {
	switch {
	case doubt:
		return r.EveryDoubt
	case b.State == Grace || b.State == Exhausted:
		return r.EveryShut
	case noBalance:
		return max(r.Every/24, r.EveryShut)
	}
	return r.Every
}

// AcceptDrift takes the sink's side of the team's newest reconciliation.
func (s *Service) AcceptDrift(ctx context.Context, teamID, reconciliationID string, by By) (Balance, error) {
	if err := checkTeam(teamID); err != nil {
		return Balance{}, err
	}
	if err := checkReason(by.Reason); err != nil {
		return Balance{}, err
	}
	now := s.now()
	op := NewOperation("accept_drift", teamID, by, map[string]any{"reconciliation_id": reconciliationID}, now)
	b, err := s.store.AcceptDrift(ctx, teamID, reconciliationID, op, func(st Standing, rec Reconciliation) Verdict {
		v := Verdict{Rebase: true, BasePosted: rec.PostedNanoUSD, Doubt: ids(append(st.Doubt, st.Late...)), ResetAt: st.ResetAt, Balance: st.Balance, Reconciliation: rec, DueAt: now}
		f := Finding{Grant: rec.SinkBalanceNanoUSD + rec.PostedNanoUSD - st.Balance.GrantedNanoUSD}
		v.grant(&v.Balance, f, now)
		if v.Grant != nil {
			v.Grant.Kind = GrantAccepted
		}
		v.Balance.OpenDriftNanoUSD = 0
		if t, ok := s.rules.Policy.Move(&v.Balance, CauseReport, by.Reason, now); ok {
			v.Transition = &t
		}
		return v
	})
	if err != nil {
		return Balance{}, err
	}
	s.wake()
	return b, nil
}

func ids(charges []Charge) []string {
	out := make([]string, 0, len(charges))
	for _, c := range charges {
		out = append(out, c.ChargeID)
	}
	return out
}
