package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// actor is who asks: as the request says, else as its credentials do.
func actor(ctx context.Context, named string) string {
	if named != "" {
		return named
	}
	return serve.Actor(ctx)
}

// RequeueCharges makes dead charges due again.
func (s *Server) RequeueCharges(ctx context.Context, req *outboxsvcv1.RequeueChargesRequest) (*outboxsvcv1.RequeueChargesResponse, error) {
	f := req.GetFilter()
	done, err := s.svc.Requeue(ctx, relay.Requeue{
		ChargeIDs: req.GetChargeIds(), TeamID: f.GetTeamId(), ReasonContains: f.GetReasonContains(),
		FrozenAfter: timeOf(f.GetFrozenAfter()), FrozenBefore: timeOf(f.GetFrozenBefore()), Max: f.GetMaxCharges(),
		DryRun: req.GetDryRun(), Verified: req.GetVerifiedNotApplied(), Actor: actor(ctx, req.GetActor()), Reason: req.GetReason(),
	})
	if err != nil {
		return nil, err
	}
	return &outboxsvcv1.RequeueChargesResponse{ChargeIds: done.ChargeIDs, UnverifiedChargeIds: done.Unverified}, nil
}

// ResolveCharge settles a charge by hand.
func (s *Server) ResolveCharge(ctx context.Context, req *outboxsvcv1.ResolveChargeRequest) (*outboxsvcv1.ResolveChargeResponse, error) {
	res := req.GetResolution()
	if res != outboxsvcv1.Resolution_RESOLUTION_APPLIED && res != outboxsvcv1.Resolution_RESOLUTION_NOT_APPLIED {
		return nil, fault.Errorf(fault.Invalid, "resolution is not set")
	}
	done, err := s.svc.Resolve(ctx, relay.Resolve{
		ChargeID: req.GetChargeId(), Applied: res == outboxsvcv1.Resolution_RESOLUTION_APPLIED, AppliedNanoUSD: money.NanoUSD(req.GetAppliedNanoUsd()),
		NewKey: req.GetNewKey(), DryRun: req.GetDryRun(), Actor: actor(ctx, req.GetActor()), Reason: req.GetReason(),
	})
	if err != nil {
		return nil, err
	}
	return &outboxsvcv1.ResolveChargeResponse{
		ChargeId: done.ChargeID, TeamId: done.TeamID, State: done.State,
		AmountNanoUsd: int64(done.AmountNanoUSD), ShortfallNanoUsd: int64(done.Shortfall),
	}, nil
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// PauseTeam stops the posting of a team's charges, or of all.
func (s *Server) PauseTeam(ctx context.Context, req *outboxsvcv1.PauseTeamRequest) (*outboxsvcv1.PauseTeamResponse, error) {
	err := s.svc.Pause(ctx, relay.Pause{TeamID: req.GetTeamId(), All: req.GetAll(), Actor: actor(ctx, req.GetActor()), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &outboxsvcv1.PauseTeamResponse{}, nil
}

// ResumeTeam ends a pause.
func (s *Server) ResumeTeam(ctx context.Context, req *outboxsvcv1.ResumeTeamRequest) (*outboxsvcv1.ResumeTeamResponse, error) {
	resumed, err := s.svc.Resume(ctx, relay.Pause{TeamID: req.GetTeamId(), All: req.GetAll(), Actor: actor(ctx, req.GetActor()), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &outboxsvcv1.ResumeTeamResponse{Resumed: resumed}, nil
}

// ReconcileNow reads balances at the sink and reports them.
func (s *Server) ReconcileNow(ctx context.Context, req *outboxsvcv1.ReconcileNowRequest) (*outboxsvcv1.ReconcileNowResponse, error) {
	if len(req.GetTeamIds()) > 100 {
		return nil, fault.Errorf(fault.Invalid, "team_ids has more than 100")
	}
	done, err := s.svc.ReconcileNow(ctx, req.GetTeamIds())
	if err != nil {
		return nil, err
	}
	resp := &outboxsvcv1.ReconcileNowResponse{}
	for _, r := range done {
		t := &outboxsvcv1.TeamReconciliation{
			TeamId: r.TeamID, ReconciliationId: r.ID, Class: r.Class, Detail: r.Detail, Fixed: r.Fixed,
			DriftNanoUsd: int64(r.DriftNanoUSD), UsageDriftNanoUsd: int64(r.UsageDrift),
		}
		if r.Err != nil {
			t.Error = fault.Text(r.Err)
		}
		resp.Reconciliations = append(resp.Reconciliations, t)
	}
	return resp, nil
}
