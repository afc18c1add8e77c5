package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// SuspendTeam closes a team's gate.
func (s *Server) SuspendTeam(ctx context.Context, req *billingsvcv1.SuspendTeamRequest) (*billingsvcv1.SuspendTeamResponse, error) {
	b, err := s.svc.Suspend(ctx, req.GetTeamId(), billing.By{Actor: req.GetActor(), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SuspendTeamResponse{Gate: gateOf(b.TeamID, b.Gate)}, nil
}

// UnsuspendTeam ends a suspension.
func (s *Server) UnsuspendTeam(ctx context.Context, req *billingsvcv1.UnsuspendTeamRequest) (*billingsvcv1.UnsuspendTeamResponse, error) {
	b, err := s.svc.Unsuspend(ctx, req.GetTeamId(), billing.By{Actor: req.GetActor(), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.UnsuspendTeamResponse{Gate: gateOf(b.TeamID, b.Gate)}, nil
}

// NudgeTeam makes a team due to be reconciled.
func (s *Server) NudgeTeam(ctx context.Context, req *billingsvcv1.NudgeTeamRequest) (*billingsvcv1.NudgeTeamResponse, error) {
	known, err := s.svc.Nudge(ctx, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.NudgeTeamResponse{Known: known}, nil
}

// LeaseReconciliations hands out teams whose balance has to be read.
func (s *Server) LeaseReconciliations(ctx context.Context, req *billingsvcv1.LeaseReconciliationsRequest) (*billingsvcv1.LeaseReconciliationsResponse, error) {
	limit, hold := leaseSize(req.GetMaxTeams(), req.GetLeaseSeconds())
	leases, err := s.svc.LeaseReconciliations(ctx, req.GetWorker(), req.GetTeamIds(), limit, hold)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.LeaseReconciliationsResponse{}
	for _, l := range leases {
		resp.Leases = append(resp.Leases, &billingsvcv1.ReconciliationLease{
			TeamId: l.TeamID, LeaseToken: l.Token, ExpiresAt: timestamppb.New(l.ExpiresAt), DoubtfulCharges: chargesOf(l.Doubtful),
		})
	}
	return resp, nil
}

// ReportBalance judges what the sink says of a team.
func (s *Server) ReportBalance(ctx context.Context, req *billingsvcv1.ReportBalanceRequest) (*billingsvcv1.ReportBalanceResponse, error) {
	sight := billing.Sighting{
		NoBalance: req.GetNoBalance(), Unlimited: req.GetUnlimited(), ResetAt: pointTo(req.GetNextResetAt()),
		ObservedAt: when(req.GetObservedAt()), Found: req.GetFoundChargeIds(),
	}
	if len(sight.Found) > 1000 {
		return nil, fault.Errorf(fault.Invalid, "found_charge_ids has more than 1000")
	}
	if !sight.NoBalance {
		var err error
		if sight.Balance, err = credits("balance_credits", req.GetBalanceCredits()); err != nil {
			return nil, err
		}
		if sight.Usage, err = credits("usage_credits", req.GetUsageCredits()); err != nil {
			return nil, err
		}
	}
	rec, b, err := s.svc.Report(ctx, billing.Report{TeamID: req.GetTeamId(), Token: req.GetLeaseToken(), Sighting: sight})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.ReportBalanceResponse{
		Reconciliation: reconciliationOf(rec), Gate: gateOf(b.TeamID, b.Gate), ShadowNanoUsd: int64(b.Shadow()),
	}, nil
}

// AcceptDrift takes the sink's side.
func (s *Server) AcceptDrift(ctx context.Context, req *billingsvcv1.AcceptDriftRequest) (*billingsvcv1.AcceptDriftResponse, error) {
	b, err := s.svc.AcceptDrift(ctx, req.GetTeamId(), req.GetReconciliationId(), billing.By{Actor: req.GetActor(), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.AcceptDriftResponse{Gate: gateOf(b.TeamID, b.Gate), ShadowNanoUsd: int64(b.Shadow())}, nil
}

// ReleaseReconciliation gives back a leased team that could not be read.
func (s *Server) ReleaseReconciliation(ctx context.Context, req *billingsvcv1.ReleaseReconciliationRequest) (*billingsvcv1.ReleaseReconciliationResponse, error) {
	after, err := milliseconds(req.GetRetryAfterMs())
	if err != nil {
		return nil, err
	}
	if err := s.svc.Release(ctx, req.GetTeamId(), req.GetLeaseToken(), after); err != nil {
		return nil, err
	}
	return &billingsvcv1.ReleaseReconciliationResponse{}, nil
}

// SetTopUp sets a team's rule of top-ups.
func (s *Server) SetTopUp(ctx context.Context, req *billingsvcv1.SetTopUpRequest) (*billingsvcv1.SetTopUpResponse, error) {
	r, err := s.svc.SetTopUpRule(ctx, billing.TopUpRule{
		TeamID: req.GetTeamId(), Enabled: req.GetEnabled(), BelowNanoUSD: money.NanoUSD(req.GetBelowNanoUsd()),
		AmountNanoUSD: money.NanoUSD(req.GetAmountNanoUsd()), MaxPerMonth: req.GetMaxPerMonth(),
	}, billing.By{Actor: req.GetActor(), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SetTopUpResponse{Rule: ruleOf(r)}, nil
}

// LeaseTopUps hands out top-ups to be asked for.
func (s *Server) LeaseTopUps(ctx context.Context, req *billingsvcv1.LeaseTopUpsRequest) (*billingsvcv1.LeaseTopUpsResponse, error) {
	limit, hold := leaseSize(req.GetMaxTopUps(), req.GetLeaseSeconds())
	leases, err := s.svc.LeaseTopUps(ctx, req.GetWorker(), limit, hold)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.LeaseTopUpsResponse{}
	for _, l := range leases {
		resp.Leases = append(resp.Leases, &billingsvcv1.TopUpLease{
			TopUp: topUpOf(l.TopUp), LeaseToken: l.Token, ExpiresAt: timestamppb.New(l.ExpiresAt), CountedInvoiceIds: l.Counted,
		})
	}
	return resp, nil
}

// SettleTopUp records the outcome of one attempt.
func (s *Server) SettleTopUp(ctx context.Context, req *billingsvcv1.SettleTopUpRequest) (*billingsvcv1.SettleTopUpResponse, error) {
	retry, err := milliseconds(req.GetRetryAfterMs())
	if err != nil {
		return nil, err
	}
	t, err := s.svc.SettleTopUp(ctx, billing.TopUpSettlement{
		TopUpID: req.GetTopUpId(), LeaseToken: req.GetLeaseToken(), Outcome: topUpOutcomes[req.GetOutcome()],
		Detail: req.GetDetail(), RetryAfter: retry, InvoiceID: req.GetInvoiceId(),
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SettleTopUpResponse{TopUp: topUpOf(t)}, nil
}

// ResolveTopUp settles a top-up by hand.
func (s *Server) ResolveTopUp(ctx context.Context, req *billingsvcv1.ResolveTopUpRequest) (*billingsvcv1.ResolveTopUpResponse, error) {
	res := req.GetResolution()
	if res != billingsvcv1.Resolution_RESOLUTION_APPLIED && res != billingsvcv1.Resolution_RESOLUTION_NOT_APPLIED {
		return nil, errNoResolution()
	}
	t, err := s.svc.ResolveTopUp(ctx, billing.ResolveTopUp{
		TopUpID: req.GetTopUpId(), Paid: res == billingsvcv1.Resolution_RESOLUTION_APPLIED, InvoiceID: req.GetInvoiceId(),
		DryRun: req.GetDryRun(), By: billing.By{Actor: req.GetActor(), Reason: req.GetReason()},
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.ResolveTopUpResponse{TopUp: topUpOf(t)}, nil
}

// leaseSize fills in the defaults of a lease.
func leaseSize(limit, seconds int32) (int, time.Duration) {
	if limit == 0 {
		limit = defaultLeases
	}
	if seconds == 0 {
		seconds = defaultLeaseSeconds
	}
	return int(limit), time.Duration(seconds) * time.Second
}
