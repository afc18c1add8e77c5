package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

const (
	// readBatch teams are read in a call. All are leased at once, for 45 s: so many
	// are read in that time even at a read a second.
	readBatch = 25
	// readRounds is how often a team is asked for that could not be read, or whose
	// charges were under way.
	readRounds = 5
)

// sinkState is how the outbox stands to the sink. The zero value is a sink that
// is left out.
type sinkState struct {
	name       string
	configured bool
	stop       string // why it is neither posted to nor read; empty: it is
}

// open says whether charges go to the sink.
func (s sinkState) open() bool { return s.configured && s.stop == "" }

// deliver posts what is due, and tells what stops the outbox from doing so.
func (a *auditor) deliver(ctx context.Context) (sinkState, error) {
	_, err := a.outbox.DeliverNow(ctx, &outboxv1.DeliverNowRequest{})
	s, err := a.sinkState(ctx, err)
	if err != nil {
		return s, fmt.Errorf("deliver charges: %w", err)
	}
	return s, nil
}

// sinkState judges an error of the outbox: it may be the sink's. That of an
// outbox which does not answer is returned.
func (a *auditor) sinkState(ctx context.Context, failed error) (sinkState, error) {
	stats, err := a.outbox.GetStats(ctx, &outboxv1.GetStatsRequest{})
	if err != nil {
		return sinkState{}, fmt.Errorf("ask the outbox: %w", err)
	}
	s := sinkState{name: stats.GetSink(), configured: stats.GetSinkConfigured()}
	switch code := status.Code(failed); {
	case stats.GetHaltReason() != "":
		s.stop = "nothing is posted: " + stats.GetHaltReason()
	case stats.GetBreakerOpenUntil() != nil:
		s.stop = "the sink is left alone until " + stats.GetBreakerOpenUntil().AsTime().Format(time.RFC3339)
	case code == codes.FailedPrecondition, code == codes.Unavailable:
		s.stop = status.Convert(failed).Message()
	case failed != nil:
		return s, failed
	}
	return s, nil
}

// sight is what the sink says of the books.
type sight struct {
	verdict
	doubts bool // the books had charges in doubt, which it may have proved
}

// lookAtSink has the teams of which anything is posted, or may be, compared with
// the sink.
func (a *auditor) lookAtSink(ctx context.Context, books *verdict) (*sight, error) {
	v := &sight{}
	var teams []string
	posted := map[string]bool{}
	for _, t := range books.teams {
		v.doubts = v.doubts || t.GetDoubtfulNanoUsd() != 0
		posted[t.GetTeamId()] = t.GetPostedNanoUsd() != 0
		if t.GetPostedNanoUsd() != 0 || t.GetDoubtfulNanoUsd() != 0 {
			teams = append(teams, t.GetTeamId())
		}
	}
	switch sink := books.sink; {
	case a.noSink:
		v.note("was not asked (--no-sink)")
	case !sink.configured:
		v.note("none is configured: charges of $%s wait; nothing was read back", books.waiting)
	case len(teams) == 0:
	case sink.stop != "":
		v.wait("%d teams are not compared with the sink: %s", len(teams), sink.stop)
	case sink.name == "stripe":
		v.note("Stripe's meters have no balance to read back: what is posted is what Stripe answered that it took, charge by charge")
	default:
		return v, a.reconcile(ctx, v, teams, posted)
	}
	return v, nil
}

// reconcile has the teams read at the sink and judges what became of them.
func (a *auditor) reconcile(ctx context.Context, v *sight, teams []string, posted map[string]bool) error {
	found, failed := a.readAll(ctx, teams)
	if failed != nil {
		state, err := a.sinkState(ctx, failed)
		if err != nil {
			return fmt.Errorf("read the sink: %w", err)
		}
		v.wait("%d of %d teams are not compared with the sink: %s", len(teams)-len(found), len(teams), state.stop)
	}
	classes := map[string]int{}
	for _, team := range teams {
		r := found[team]
		if r == nil {
			if failed == nil {
				v.wait("team %s: it is not compared with the sink: the outbox says nothing of it", team)
			}
			continue
		}
		if r.GetError() == "" {
			classes[r.GetClass()]++
		}
		if err := a.judge(ctx, v, r, posted[team]); err != nil {
			return err
		}
	}
	v.note("agrees with the books of %d teams", len(found)-len(v.faults)-unread(found))
	if n := classes["baseline"] + classes["reset"]; n > 0 {
		v.note("began the books of %d of them anew: a new cycle, or the first reading", n)
	}
	return nil
}

// unread counts the teams that are neither right nor wrong.
func unread(found map[string]*outboxv1.TeamReconciliation) int {
	n := 0
	for _, r := range found {
		if unsettled(r) {
			n++
		}
	}
	return n
}

// unsettled says whether another look may say more.
func unsettled(r *outboxv1.TeamReconciliation) bool {
	return r.GetError() != "" || r.GetClass() == "in_flight"
}

// readAll has the teams reconciled, a batch at a time. Some may be missing if it
// fails.
func (a *auditor) readAll(ctx context.Context, teams []string) (map[string]*outboxv1.TeamReconciliation, error) {
	found := map[string]*outboxv1.TeamReconciliation{}
	todo := teams
	for round := 1; len(todo) > 0; round++ {
		var again []string
		for batch := range slices.Chunk(todo, readBatch) {
			resp, err := a.outbox.ReconcileNow(ctx, &outboxv1.ReconcileNowRequest{TeamIds: batch})
			if err != nil {
				return found, err
			}
			for _, r := range resp.GetReconciliations() {
				// The first error of a team says why it could not be read: that of
				// another look may only be that somebody else reads it.
				if old := found[r.GetTeamId()]; old.GetError() == "" || r.GetError() == "" {
					found[r.GetTeamId()] = r
				}
				if unsettled(r) {
					again = append(again, r.GetTeamId())
				}
			}
			if len(teams) > readBatch {
				progress("%d of %d teams are read at the sink", len(found), len(teams))
			}
		}
		if todo = again; round == readRounds {
			break
		}
		if len(todo) > 0 {
			if err := pause(ctx); err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// judge says what is wrong with a team, if anything is. What explains a
// difference, such as a new cycle or credits that were granted, is no fault.
func (a *auditor) judge(ctx context.Context, v *sight, r *outboxv1.TeamReconciliation, posted bool) error {
	switch {
	case r.GetError() != "":
		v.wait("team %s: it is not compared with the sink: %s", r.GetTeamId(), r.GetError())
	case r.GetClass() == "in_flight":
		v.wait("team %s: %s", r.GetTeamId(), r.GetDetail())
	case r.GetClass() == "no_balance" && r.GetFixed() && posted:
		v.fault("team %s: charges were posted, and the sink knows no balance of the team", r.GetTeamId())
	case r.GetFixed():
	default:
		charges, err := a.chargesOf(ctx, r)
		if err != nil {
			return err
		}
		v.fault("team %s: %s: %s; the sink's balance is off by %s, its usage by %s; reconciliation %s, charges %s", r.GetTeamId(),
			r.GetClass(), r.GetDetail(), amount(r.GetDriftNanoUsd()), amount(r.GetUsageDriftNanoUsd()), r.GetReconciliationId(), charges)
	}
	return nil
}

// chargesOf names the charges of a reconciliation.
func (a *auditor) chargesOf(ctx context.Context, r *outboxv1.TeamReconciliation) (string, error) {
	resp, err := a.billing.ListReconciliations(ctx, &billingv1.ListReconciliationsRequest{TeamId: r.GetTeamId(), PageSize: 100})
	if err != nil {
		return "", fmt.Errorf("list reconciliations: %w", err)
	}
	for _, kept := range resp.GetReconciliations() {
		if kept.GetReconciliationId() == r.GetReconciliationId() && len(kept.GetChargeIds()) > 0 {
			return strings.Join(kept.GetChargeIds(), ", "), nil
		}
	}
	return "none", nil
}

func amount(n int64) string {
	return fmt.Sprintf("$%s (%s credits)", money.NanoUSD(n), money.NanoUSD(n).Credits())
}
