package billing

import (
	"context"
	"strings"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// Requeue makes dead charges due again, or tells which it would be.
func (c *Client) Requeue(ctx context.Context, r relay.Requeue) (relay.Requeued, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &billingsvcv1.RequeueChargesRequest{
		ChargeIds: r.ChargeIDs, DryRun: r.DryRun, Actor: r.Actor, Reason: r.Reason, VerifiedNotApplied: r.Verified,
	}
	if r.TeamID != "" || r.ReasonContains != "" || r.Max != 0 || !r.FrozenAfter.IsZero() || !r.FrozenBefore.IsZero() {
		req.Filter = &billingsvcv1.ChargeFilter{
			TeamId: r.TeamID, ErrorContains: r.ReasonContains, MaxCharges: r.Max,
			FrozenAfter: instant(r.FrozenAfter), FrozenBefore: instant(r.FrozenBefore),
		}
	}
	resp, err := c.api.RequeueCharges(ctx, req)
	if err != nil {
		return relay.Requeued{}, faultOf(err)
	}
	done := relay.Requeued{Unverified: resp.GetUnverifiedChargeIds()}
	for _, ch := range resp.GetCharges() {
		done.ChargeIDs = append(done.ChargeIDs, ch.GetChargeId())
	}
	return done, nil
}

// Resolve settles a charge by hand.
func (c *Client) Resolve(ctx context.Context, r relay.Resolve) (relay.Resolved, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &billingsvcv1.ResolveChargeRequest{
		ChargeId: r.ChargeID, Resolution: billingsvcv1.Resolution_RESOLUTION_NOT_APPLIED, AppliedNanoUsd: int64(r.AppliedNanoUSD),
		NewKey: r.NewKey, DryRun: r.DryRun, Actor: r.Actor, Reason: r.Reason,
	}
	if r.Applied {
		req.Resolution = billingsvcv1.Resolution_RESOLUTION_APPLIED
	}
	resp, err := c.api.ResolveCharge(ctx, req)
	if err != nil {
		return relay.Resolved{}, faultOf(err)
	}
	ch := resp.GetCharge()
	return relay.Resolved{
		ChargeID: ch.GetChargeId(), TeamID: ch.GetTeamId(), AmountNanoUSD: money.NanoUSD(ch.GetAmountNanoUsd()),
		Shortfall: money.NanoUSD(ch.GetShortfallNanoUsd()), State: strings.ToLower(strings.TrimPrefix(ch.GetState().String(), "CHARGE_STATE_")),
	}, nil
}

// Pause stops the posting of a team's charges, or of all.
func (c *Client) Pause(ctx context.Context, p relay.Pause) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.api.PauseTeam(ctx, &billingsvcv1.PauseTeamRequest{TeamId: p.TeamID, All: p.All, Actor: p.Actor, Reason: p.Reason})
	if err != nil {
		return faultOf(err)
	}
	return nil
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context, p relay.Pause) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.ResumeTeam(ctx, &billingsvcv1.ResumeTeamRequest{TeamId: p.TeamID, All: p.All, Actor: p.Actor, Reason: p.Reason})
	if err != nil {
		return false, faultOf(err)
	}
	return resp.GetResumed(), nil
}
