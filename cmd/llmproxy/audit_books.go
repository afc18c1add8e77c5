package main

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// books has the workers do their pass and compares the sums of the ledger, of
// billing and of the charges, team by team. Only the first look is a full one:
// what it found right it need not see again.
func (a *auditor) books(ctx context.Context) (*verdict, error) {
	v := &verdict{}
	if err := a.sync(ctx, v); err != nil {
		return nil, err
	}
	if !a.noSink {
		var err error
		if v.sink, err = a.deliver(ctx); err != nil {
			return nil, err
		}
	}
	billing, err := a.auditBilling(ctx, v)
	if err != nil {
		return nil, err
	}
	// The ledger is asked last, so it has all that billing has read.
	ledger, err := a.spend.AuditSpend(ctx, &proxyv1.AuditSpendRequest{})
	if err != nil {
		return nil, fmt.Errorf("audit the ledger: %w", err)
	}
	v.rows, v.spend = ledger.GetRows(), money.NanoUSD(ledger.GetCostNanoUsd())
	v.faults = append(v.faults, ledger.GetFaults()...)
	v.compareLedger(ledger.GetTeams(), billing.GetRead())
	stops, err := a.stops(ctx, v.sink)
	if err != nil {
		return nil, err
	}
	for _, t := range v.teams {
		v.sum(t, stops)
	}
	return v, nil
}

// sync bills what is on the ledger; for who may only read, billing does so by
// itself. That a log cannot be billed to its end is a fault of the sums; the audit
// then says of which.
func (a *auditor) sync(ctx context.Context, v *verdict) error {
	_, err := a.billing.SyncNow(ctx, &billingv1.SyncNowRequest{})
	switch status.Code(err) {
	case codes.OK, codes.PermissionDenied:
	case codes.Internal, codes.DataLoss, codes.FailedPrecondition:
		v.fault("the ledger cannot be billed to its end: %s", status.Convert(err).Message())
	default:
		return fmt.Errorf("sync billing: %w", err)
	}
	return nil
}

func (a *auditor) auditBilling(ctx context.Context, v *verdict) (*billingv1.AuditBillingResponse, error) {
	full := a.full && !a.began
	if full {
		progress("checking every event from the beginning")
	}
	billing, err := a.billing.AuditBilling(ctx, &billingv1.AuditBillingRequest{Full: full})
	if err != nil {
		return nil, fmt.Errorf("audit billing: %w", err)
	}
	if !a.began {
		a.began, a.trusted = true, billing.GetEventsTrusted()
	}
	if full {
		a.full1st = billing.GetFaults()
	}
	// What this audit checked in an earlier round is trusted in this one.
	v.trusted, v.checked = a.trusted, billing.GetEventsChecked()+billing.GetEventsTrusted()-a.trusted
	v.teams, v.quarantined = billing.GetTeams(), money.NanoUSD(billing.GetQuarantinedNanoUsd())
	for _, f := range append(slices.Clone(a.full1st), billing.GetFaults()...) {
		if !slices.Contains(v.faults, f) {
			v.faults = append(v.faults, f)
		}
	}
	return billing, nil
}

// compareLedger finds the spend that billing has not read yet. Rows without a
// team are never billed: they are in quarantine.
func (v *verdict) compareLedger(ledger []*proxyv1.TeamSpend, read []*billingv1.TeamRead) {
	diff := map[string]int64{}
	for _, t := range ledger {
		diff[t.GetTeamId()] += t.GetCostNanoUsd()
	}
	for _, t := range read {
		diff[t.GetTeamId()] -= t.GetCostNanoUsd()
	}
	delete(diff, "")
	for team, n := range diff {
		switch {
		case n > 0:
			v.wait("team %s: $%s of spend have no billing event yet", team, money.NanoUSD(n))
		case n < 0:
			v.fault("team %s: billing has read $%s more than the ledger has", team, money.NanoUSD(-n))
		default:
			continue
		}
		v.moving = true
	}
	slices.Sort(v.pending)
}

// stops says why charges are not posted: all of them under "", or a team's.
func (a *auditor) stops(ctx context.Context, sink sinkState) (map[string]string, error) {
	pauses, err := a.billing.ListPauses(ctx, &billingv1.ListPausesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list pauses: %w", err)
	}
	stops := map[string]string{}
	for _, p := range pauses.GetPauses() {
		stops[p.GetTeamId()] = fmt.Sprintf("posting is paused by %s: %s", p.GetActor(), p.GetReason())
	}
	if sink.stop != "" {
		stops[""] = sink.stop
	}
	return stops, nil
}

// sum adds a team's sums and tells what of its charges is not posted. What the
// sink did not take of a charge that is settled is over and done.
func (v *verdict) sum(t *billingv1.TeamBilling, stops map[string]string) {
	v.billed += money.NanoUSD(t.GetBilledNanoUsd())
	v.charged += money.NanoUSD(t.GetChargedNanoUsd())
	v.carried += money.NanoUSD(t.GetCarriedNanoUsd())
	v.posted += money.NanoUSD(t.GetPostedNanoUsd())
	v.short += money.NanoUSD(t.GetShortNanoUsd())
	if n := t.GetDeadNanoUsd(); n != 0 {
		v.wait("team %s: charges of $%s were refused for good (llmproxy outbox dead --team %s)", t.GetTeamId(), money.NanoUSD(n), t.GetTeamId())
	}
	if n := t.GetDoubtfulNanoUsd(); n != 0 {
		v.wait("team %s: charges of $%s are in doubt, they may be applied (llmproxy outbox doubts --team %s)", t.GetTeamId(), money.NanoUSD(n), t.GetTeamId())
	}
	waiting := t.GetChargedNanoUsd() - t.GetPostedNanoUsd() - t.GetShortNanoUsd() - t.GetDeadNanoUsd() - t.GetDoubtfulNanoUsd()
	v.waiting += money.NanoUSD(waiting)
	if waiting == 0 || !v.sink.configured { // those are one sum, which is said of the sink
		return
	}
	why := ""
	for _, team := range []string{t.GetTeamId(), ""} {
		if stops[team] != "" {
			why = ": " + stops[team]
		}
	}
	v.wait("team %s: charges of $%s are not posted yet%s", t.GetTeamId(), money.NanoUSD(waiting), why)
	v.moving = v.moving || why == ""
}
