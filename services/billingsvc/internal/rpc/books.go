package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// RecordEvent bills something that is not on the spend ledger.
func (s *Server) RecordEvent(ctx context.Context, req *billingsvcv1.RecordEventRequest) (*billingsvcv1.RecordEventResponse, error) {
	if t := req.GetOccurredAt(); t != nil && !t.IsValid() {
		return nil, fault.Errorf(fault.Invalid, "occurred_at is not an instant")
	}
	r, err := s.svc.Record(ctx, billing.Event{
		IdempotencyKey: req.GetIdempotencyKey(), OrganizationID: req.GetTeamId(), EventType: req.GetEventType(),
		Quantity: req.GetQuantity(), PriceNanoUSD: money.NanoUSD(req.GetPriceNanoUsd()), CostNanoUSD: money.NanoUSD(req.GetCostNanoUsd()),
		SessionIDs: req.GetSessionIds(), OccurredAt: when(req.GetOccurredAt()), Extra: req.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.RecordEventResponse{BillingEvent: eventOf(r.Event), Created: r.Created}, nil
}

// AdjustBalance corrects what a team was billed.
func (s *Server) AdjustBalance(ctx context.Context, req *billingsvcv1.AdjustBalanceRequest) (*billingsvcv1.AdjustBalanceResponse, error) {
	r, err := s.svc.Adjust(ctx, billing.Adjustment{
		TeamID: req.GetTeamId(), IdempotencyKey: req.GetIdempotencyKey(), PriceNanoUSD: money.NanoUSD(req.GetPriceNanoUsd()),
		Corrects: req.GetCorrects(), By: billing.By{Actor: req.GetActor(), Reason: req.GetReason()},
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.AdjustBalanceResponse{BillingEvent: eventOf(r.Event), Created: r.Created}, nil
}

// SetMarkup sets a team's markup from an instant on.
func (s *Server) SetMarkup(ctx context.Context, req *billingsvcv1.SetMarkupRequest) (*billingsvcv1.SetMarkupResponse, error) {
	m, err := s.svc.SetMarkup(ctx, billing.TeamMarkup{
		TeamID: req.GetTeamId(), Markup: req.GetMarkup(), EffectiveFrom: when(req.GetEffectiveFrom()),
		Actor: req.GetActor(), Reason: req.GetReason(),
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SetMarkupResponse{Markup: markupOf(m)}, nil
}

// RerateQuarantine bills rows in quarantine.
func (s *Server) RerateQuarantine(ctx context.Context, req *billingsvcv1.RerateQuarantineRequest) (*billingsvcv1.RerateQuarantineResponse, error) {
	r := billing.Rerating{
		TeamID: req.GetTeamId(), DryRun: req.GetDryRun(), By: billing.By{Actor: req.GetActor(), Reason: req.GetReason()},
	}
	for _, p := range req.GetPlaces() {
		r.Places = append(r.Places, billing.Place{LogID: p.GetLogId(), Seq: p.GetSeq()})
	}
	if req.CostNanoUsd != nil {
		cost := money.NanoUSD(req.GetCostNanoUsd())
		r.Cost = &cost
	}
	out, err := s.svc.Rerate(ctx, r)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.RerateQuarantineResponse{}
	for _, e := range out.Events {
		resp.BillingEvents = append(resp.BillingEvents, eventOf(e))
	}
	for _, q := range out.Still {
		resp.StillQuarantined = append(resp.StillQuarantined, quarantinedOf(q))
	}
	return resp, nil
}

// PauseTeam stops posting.
func (s *Server) PauseTeam(ctx context.Context, req *billingsvcv1.PauseTeamRequest) (*billingsvcv1.PauseTeamResponse, error) {
	if err := oneOrAll(req.GetTeamId(), req.GetAll()); err != nil {
		return nil, err
	}
	p, err := s.svc.Pause(ctx, req.GetTeamId(), billing.By{Actor: req.GetActor(), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.PauseTeamResponse{Pause: pauseOf(p)}, nil
}

// ResumeTeam ends a pause.
func (s *Server) ResumeTeam(ctx context.Context, req *billingsvcv1.ResumeTeamRequest) (*billingsvcv1.ResumeTeamResponse, error) {
	if err := oneOrAll(req.GetTeamId(), req.GetAll()); err != nil {
		return nil, err
	}
	resumed, err := s.svc.Resume(ctx, req.GetTeamId(), billing.By{Actor: req.GetActor(), Reason: req.GetReason()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.ResumeTeamResponse{Resumed: resumed}, nil
}

// oneOrAll refuses a request that means a team and all, or neither: an empty
// team_id by mistake must not stop everything.
func oneOrAll(teamID string, all bool) error {
	if (teamID == "") != all {
		return fault.Errorf(fault.Invalid, "either team_id or all is needed")
	}
	return nil
}

// ListPauses lists what is paused.
func (s *Server) ListPauses(ctx context.Context, _ *billingsvcv1.ListPausesRequest) (*billingsvcv1.ListPausesResponse, error) {
	list, err := s.svc.Pauses(ctx)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListPausesResponse{}
	for _, p := range list {
		resp.Pauses = append(resp.Pauses, pauseOf(p))
	}
	return resp, nil
}

func pauseOf(p billing.Pause) *billingsvcv1.Pause {
	return &billingsvcv1.Pause{TeamId: p.TeamID, Actor: p.Actor, Reason: p.Reason, PausedAt: timestamppb.New(p.PausedAt)}
}
