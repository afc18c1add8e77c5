package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/store"
)

// phone is a keysvc that remembers what it was told and may be out of order.
type phone struct {
	mu   sync.Mutex
	said []string
	gens []int64 // of what was said
	seen int64   // the newest generation that was heard of
	err  error
	ring func() // what happens while it listens; nil: nothing
}

func (p *phone) SetGate(_ context.Context, a billing.Announcement) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, p.err
	}
	p.seen = max(p.seen, a.Generation)
	p.said = append(p.said, a.TeamID+" "+string(a.Gate.Status())+" "+a.Gate.Reason)
	p.gens = append(p.gens, a.Generation)
	if p.ring != nil {
		p.ring()
	}
	return p.seen, nil
}

func (p *phone) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.said...)
}

// gated is a bench with a grace of an hour and an overdraft of 100, and a
// keysvc.
func gated(t *testing.T, trial money.NanoUSD) (*bench, *phone) {
	t.Helper()
	b := newBench(t, 10)
	p := &phone{}
	b.opt.Rules.Policy = billing.Policy{TrialCredits: trial, GracePeriod: time.Hour, Overdraft: 100}
	b.opt.Keys = p
	b.svc = b.replica()
	return b, p
}

func (b *bench) announce() {
	b.t.Helper()
	if _, err := b.svc.Announce(b.t.Context()); err != nil {
		b.t.Fatalf("Announce: %v", err)
	}
}

// report leases a team and reports what the sink says of it.
func (b *bench) report(team string, s billing.Sighting) billing.Reconciliation {
	b.t.Helper()
	leases, err := b.svc.LeaseReconciliations(b.t.Context(), "worker", []string{team}, 1, time.Minute)
	if err != nil || len(leases) != 1 {
		b.t.Fatalf("LeaseReconciliations = %v, %v, want one", leases, err)
	}
	rec, _, err := b.svc.Report(b.t.Context(), billing.Report{TeamID: team, Token: leases[0].Token, Sighting: s})
	if err != nil {
		b.t.Fatalf("Report: %v", err)
	}
	return rec
}

func (b *bench) state(team string, want billing.GateState, shadow money.NanoUSD) {
	b.t.Helper()
	if got := b.balance(team); got.State != want || got.Shadow() != shadow {
		b.t.Errorf("%s is %s with %d, want %s with %d", team, got.State, got.Shadow(), want, shadow)
	}
}

// Mistake 14: the gate moves in the transaction of the spend that moves
// it, and not when the sink has heard of that.
func TestMistake14TheGateMovesWithTheSpendItself(t *testing.T) {
	t.Parallel()
	b, keysvc := gated(t, 100)
	b.ledger.add(1, "acme", 20)
	b.sync()
	b.state("acme", billing.Trial, 40)
	b.announce()
	if said := keysvc.heard(); len(said) != 0 {
		t.Errorf("keysvc heard %v of a gate that never closed", said)
	}
	b.ledger.add(1, "acme", 20)
	b.sync()
	b.state("acme", billing.Exhausted, -20)
	b.announce()
	b.announce()
	if diff := cmp.Diff([]string{"acme exhausted the organisation's credits are used up"}, keysvc.heard()); diff != "" {
		t.Errorf("keysvc heard (-want +got):\n%s", diff)
	}
	b.report("acme", billing.Sighting{Balance: 500})
	b.state("acme", billing.Active, 380)
	b.announce()
	if said := keysvc.heard(); len(said) != 2 || said[1] != "acme active " {
		t.Errorf("keysvc heard %v, want that acme is active", said)
	}
	log, err := b.svc.Transitions(t.Context(), billing.HistoryQuery{TeamID: "acme", Limit: 10})
	if err != nil || len(log) != 3 || log[0].ToState != billing.Active || log[2].FromState != billing.Unconfigured {
		t.Errorf("transitions = %+v, %v, want three, newest first", log, err)
	}
	b.sound()
}

// Mistake 24: what was spent is off the balance before the sink has heard of it, so
// that the gate closes although nothing was ever posted. What is only being spent
// is held by proxysvc when it admits a request.
func TestMistake24TheGateDoesNotWaitForTheSink(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 0)
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.report("acme", billing.Sighting{Balance: 100})
	b.state("acme", billing.Active, 70)
	for _, step := range []struct {
		want   billing.GateState
		shadow money.NanoUSD
	}{{billing.Active, 10}, {billing.Grace, -50}, {billing.Exhausted, -110}} {
		b.ledger.add(1, "acme", 20)
		b.sync()
		b.state("acme", step.want, step.shadow)
	}
	if got := b.balance("acme"); got.PostedNanoUSD != 0 {
		t.Errorf("posted %d, want nothing", got.PostedNanoUSD)
	}
}

// Mistake 6: teams are billed whatever state they are in.
func TestMistake06ATeamIsBilledInEveryState(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 100)
	b.ledger.add(1, "acme", 50)
	b.sync()
	b.state("acme", billing.Exhausted, -50)
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.state("acme", billing.Exhausted, -80)
	if _, err := b.svc.Suspend(t.Context(), "acme", billing.By{Reason: "chargeback"}); err != nil {
		t.Fatal(err)
	}
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.state("acme", billing.Suspended, -110)
	if got := b.balance("acme"); got.ChargedNanoUSD != 210 {
		t.Errorf("charged %d, want all of 210", got.ChargedNanoUSD)
	}
	b.sound()
}

// Mistake 21: an unsuspended team without credits is not active, and a plan is
// not ignored because the team is in grace or exhausted.
func TestMistake21UnsuspendedWithoutCreditsIsExhaustedUntilAPlanComes(t *testing.T) {
	t.Parallel()
	b, _ := gated(t, 10)
	b.ledger.add(1, "acme", 50)
	b.sync()
	by := billing.By{Actor: "ops", Reason: "paid"}
	if _, err := b.svc.Suspend(t.Context(), "acme", billing.By{Actor: "ops", Reason: "chargeback"}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.svc.Unsuspend(t.Context(), "acme", by); err != nil || got.State != billing.Exhausted {
		t.Errorf("Unsuspend = %s, %v, want exhausted", got.State, err)
	}
	b.report("acme", billing.Sighting{Balance: 1000})
	b.state("acme", billing.Active, 850)
	if _, err := b.svc.Unsuspend(t.Context(), "nobody", by); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Unsuspend of an unknown team = %v, want NotFound", err)
	}
	ops, err := b.svc.Operations(t.Context(), billing.HistoryQuery{TeamID: "acme", Limit: 10})
	if err != nil || len(ops) != 2 || ops[0].Action != "unsuspend" || ops[1].Reason != "chargeback" || ops[1].Actor != "ops" {
		t.Errorf("operations = %+v, %v, want both", ops, err)
	}
}

// A lost call is repeated until keysvc answers, a newer state replaces an older
// one, and what was acknowledged is repeated now and then.
func TestAnnouncementsAreRepeatedUntilTheyAreAcknowledged(t *testing.T) {
	t.Parallel()
	b, keysvc := gated(t, 10)
	b.ledger.add(1, "acme", 50)
	b.sync()
	due := func() {
		b.exec(`update billing.balances set announce_due_at = now() where announce_due_at is not null`)
	}
	keysvc.err = errors.New("connection refused")
	if _, err := b.svc.Announce(t.Context()); err == nil {
		t.Error("Announce = nil although keysvc is away")
	}
	due()
	keysvc.err = billing.ErrBlocked
	b.announce()
	if got := b.balance("acme"); got.Announced != got.Generation || got.AnnounceError == "" {
		t.Errorf("gate = %+v, want that somebody else has stopped the team", got.Gate)
	}
	keysvc.err = nil
	due()
	b.announce()
	due()
	b.announce() // the five minutes are over
	if said := keysvc.heard(); len(said) != 2 || said[0] != said[1] {
		t.Errorf("keysvc heard %v, want exhausted twice", said)
	}
	if got := b.balance("acme"); got.Announced != 1 || got.AnnounceError != "" {
		t.Errorf("gate = %+v, want generation 1 announced", got.Gate)
	}
	b.report("acme", billing.Sighting{Balance: 1000})
	b.announce()
	if got := b.balance("acme"); got.Announced != 2 {
		t.Errorf("gate = %+v, want generation 2 announced", got.Gate)
	}
}

func TestGraceEndsByItself(t *testing.T) {
	t.Parallel()
	b, keysvc := gated(t, 0)
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.state("acme", billing.Unconfigured, -30)
	b.report("acme", billing.Sighting{Balance: 40})
	b.state("acme", billing.Active, 10)
	b.ledger.add(1, "acme", 10)
	b.sync()
	b.state("acme", billing.Grace, -20)
	if err := b.svc.CheckGates(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.state("acme", billing.Grace, -20)
	b.exec(`update billing.balances set grace_until = now() - interval '1 second'`)
	if err := b.svc.CheckGates(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.state("acme", billing.Exhausted, -20)
	b.announce()
	if said := keysvc.heard(); len(said) != 1 {
		t.Errorf("keysvc heard %v, want exhausted", said)
	}
}

// A gate that moves while keysvc is told of its older state stays due.
func TestAnOlderAcknowledgementDoesNotHideANewerState(t *testing.T) {
	t.Parallel()
	b, keysvc := gated(t, 10)
	b.ledger.add(1, "acme", 50)
	b.sync()
	keysvc.ring = func() {
		keysvc.ring = nil
		b.report("acme", billing.Sighting{Balance: 1000})
	}
	b.announce()
	if got := b.balance("acme"); got.Generation != 2 || got.Announced != 1 {
		t.Errorf("gate = %+v, want generation 1 of 2 announced", got.Gate)
	}
	b.announce()
	if said := keysvc.heard(); len(said) != 2 || said[1] != "acme active " {
		t.Errorf("keysvc heard %v, want active at last", said)
	}
}

// Billing is restored to before changes that keysvc has heard of: it counts on from
// there, so that keysvc follows it again.
func TestARestoredGateCountsOnFromWhatKeysvcHeard(t *testing.T) {
	t.Parallel()
	b, keysvc := gated(t, 10)
	keysvc.seen = 7
	b.ledger.add(1, "acme", 50)
	b.sync()
	b.announce()
	if got := b.balance("acme"); got.Generation != 8 || got.Announced != 0 {
		t.Errorf("gate = %+v, want generation 8, not announced", got.Gate)
	}
	b.announce()
	if got := b.balance("acme"); got.Generation != 8 || got.Announced != 8 {
		t.Errorf("gate = %+v, want generation 8 announced", got.Gate)
	}
	if diff := cmp.Diff([]int64{1, 8}, keysvc.gens); diff != "" {
		t.Errorf("generations that were told (-want +got):\n%s", diff)
	}
	// Another replica has told of generation 9 meanwhile, which is in the books: the
	// older one that comes late moves nothing.
	b.report("acme", billing.Sighting{Balance: 1000})
	if err := store.New(b.pool).AnnouncedBefore(t.Context(), "acme", 9, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := b.balance("acme"); got.Generation != 9 {
		t.Errorf("gate = %+v, want generation 9 as it was", got.Gate)
	}
}
