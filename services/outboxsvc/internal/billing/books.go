package billing

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// Nudge makes a team due for a reading of its balance.
func (c *Client) Nudge(ctx context.Context, teamID, cause string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.api.NudgeTeam(ctx, &billingsvcv1.NudgeTeamRequest{TeamId: teamID, Cause: short(cause)}); err != nil {
		return faultOf(err)
	}
	return nil
}

// LeaseTeams asks for teams whose balance has to be read.
func (c *Client) LeaseTeams(ctx context.Context, worker string, teams []string, limit int, hold time.Duration) ([]relay.TeamLease, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.LeaseReconciliations(ctx, &billingsvcv1.LeaseReconciliationsRequest{
		Worker: worker, TeamIds: teams, MaxTeams: int32(limit), LeaseSeconds: int32(hold / time.Second), // small
	})
	if err != nil {
		return nil, faultOf(err)
	}
	leases := make([]relay.TeamLease, 0, len(resp.GetLeases()))
	for _, l := range resp.GetLeases() {
		lease := relay.TeamLease{TeamID: l.GetTeamId(), Token: l.GetLeaseToken()}
		for _, ch := range l.GetDoubtfulCharges() {
			lease.Doubtful = append(lease.Doubtful, chargeOf(ch))
		}
		leases = append(leases, lease)
	}
	return leases, nil
}

// Release gives back a leased team that could not be read.
func (c *Client) Release(ctx context.Context, l relay.TeamLease, after time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.ReleaseReconciliation(ctx, &billingsvcv1.ReleaseReconciliationRequest{
		TeamId: l.TeamID, LeaseToken: l.Token, RetryAfterMs: after.Milliseconds(),
	})
	if err != nil {
		return faultOf(err)
	}
	return nil
}

// Report reports what was found out of a team.
func (c *Client) Report(ctx context.Context, r relay.Report) (relay.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.ReportBalance(ctx, &billingsvcv1.ReportBalanceRequest{
		TeamId: r.TeamID, LeaseToken: r.Token, NoBalance: r.NoBalance,
		BalanceCredits: r.Sighting.Signed, UsageCredits: r.Sighting.Used, Unlimited: r.Sighting.Unlimited,
		NextResetAt: instant(r.Sighting.ResetAt), ObservedAt: instant(r.At), FoundChargeIds: r.Found,
	})
	if err != nil {
		return relay.Finding{}, faultOf(err)
	}
	rec := resp.GetReconciliation()
	return relay.Finding{
		TeamID: rec.GetTeamId(), ID: rec.GetReconciliationId(), Class: classOf(rec.GetClass()), Detail: rec.GetDetail(), Fixed: rec.GetFixed(),
		DriftNanoUSD: money.NanoUSD(rec.GetDriftNanoUsd()), UsageDrift: money.NanoUSD(rec.GetUsageDriftNanoUsd()),
		Used: money.NanoUSD(rec.GetSinkUsageNanoUsd()),
	}, nil
}

// Rebased says whether the books of a team's usage began anew since an instant.
func (c *Client) Rebased(ctx context.Context, teamID string, since time.Time) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ops, err := c.api.ListOperations(ctx, &billingsvcv1.ListOperationsRequest{TeamId: teamID, Action: "accept_drift", PageSize: 1})
	if err != nil {
		return false, faultOf(err)
	}
	for _, op := range ops.GetOperations() {
		if !op.GetCreatedAt().AsTime().Before(since) {
			return true, nil
		}
	}
	return c.beganSince(ctx, teamID, since)
}

// beganSince looks through a team's reconciliations, newest first, for one that
// began the books.
func (c *Client) beganSince(ctx context.Context, teamID string, since time.Time) (bool, error) {
	for page := ""; ; {
		resp, err := c.api.ListReconciliations(ctx, &billingsvcv1.ListReconciliationsRequest{TeamId: teamID, PageSize: 1000, PageToken: page})
		if err != nil {
			return false, faultOf(err)
		}
		for _, r := range resp.GetReconciliations() {
			switch {
			case r.GetCreatedAt().AsTime().Before(since):
				return false, nil
			case r.GetClass() == billingsvcv1.DriftClass_DRIFT_CLASS_BASELINE, r.GetClass() == billingsvcv1.DriftClass_DRIFT_CLASS_RESET:
				return true, nil
			}
		}
		if page = resp.GetNextPageToken(); page == "" {
			return false, nil
		}
	}
}

// classOf names a class of drift: DRIFT_CLASS_IN_FLIGHT is "in_flight".
func classOf(c billingsvcv1.DriftClass) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "DRIFT_CLASS_"))
}

// LeaseTopUps asks for top-ups that billing wants.
func (c *Client) LeaseTopUps(ctx context.Context, worker string, limit int, hold time.Duration) ([]relay.TopUpLease, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.LeaseTopUps(ctx, &billingsvcv1.LeaseTopUpsRequest{
		Worker: worker, MaxTopUps: int32(limit), LeaseSeconds: int32(hold / time.Second), // small
	})
	if err != nil {
		return nil, faultOf(err)
	}
	leases := make([]relay.TopUpLease, 0, len(resp.GetLeases()))
	for _, l := range resp.GetLeases() {
		t := l.GetTopUp()
		leases = append(leases, relay.TopUpLease{Token: l.GetLeaseToken(), TopUp: relay.TopUp{
			TopUpID: t.GetTopUpId(), TeamID: t.GetTeamId(), AmountNanoUSD: money.NanoUSD(t.GetAmountNanoUsd()),
			Unsure:   t.GetState() == billingsvcv1.TopUpState_TOP_UP_STATE_UNKNOWN,
			Attempts: int(t.GetAttempts()), FirstSentAt: timeOf(t.GetFirstSentAt()), Counted: l.GetCountedInvoiceIds(),
		}})
	}
	return leases, nil
}

var purchases = map[relay.PurchaseOutcome]billingsvcv1.TopUpOutcome{
	relay.Paid:     billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_SUCCEEDED,
	relay.Declined: billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_DECLINED,
	relay.NotDone:  billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_NOT_DONE,
	relay.Unsure:   billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_UNKNOWN,
	relay.Rejected: billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_REFUSED,
}

// SettleTopUp reports the outcome of a lease. Like Settle it waits for billing.
func (c *Client) SettleTopUp(ctx context.Context, s relay.TopUpSettlement) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.SettleTopUp(ctx, &billingsvcv1.SettleTopUpRequest{
		TopUpId: s.TopUpID, LeaseToken: s.Token, Outcome: purchases[s.Outcome], Detail: short(s.Detail),
		RetryAfterMs: s.RetryAfter.Milliseconds(), InvoiceId: s.InvoiceID,
	}, grpc.WaitForReady(true))
	if err != nil {
		return faultOf(err)
	}
	return nil
}
