// Package rpc answers BillingService: it translates, nothing else.
package rpc

import (
	"context"
	"time"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Defaults of LeaseCharges.
const (
	defaultLeases       = 16
	defaultLeaseSeconds = 60
)

// Server implements BillingService.
type Server struct {
	billingsvcv1.UnimplementedBillingServiceServer
	svc *billing.Service
}

// New makes the server.
func New(svc *billing.Service) *Server { return &Server{svc: svc} }

// SyncNow bills every log to its end.
func (s *Server) SyncNow(ctx context.Context, _ *billingsvcv1.SyncNowRequest) (*billingsvcv1.SyncNowResponse, error) {
	r, err := s.svc.Sync(ctx)
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SyncNowResponse{Rows: r.Rows, Events: r.Events, Charges: r.Charges, Quarantined: r.Quarantined}, nil
}

// GetBalance tells where a team's money stands.
func (s *Server) GetBalance(ctx context.Context, req *billingsvcv1.GetBalanceRequest) (*billingsvcv1.GetBalanceResponse, error) {
	b, err := s.svc.Balance(ctx, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.GetBalanceResponse{
		TeamId: b.TeamID, BilledNanoUsd: int64(b.BilledNanoUSD), ChargedNanoUsd: int64(b.ChargedNanoUSD),
		PostedNanoUsd: int64(b.PostedNanoUSD), CarriedNanoUsd: int64(b.CarriedNanoUSD), SinkBalanceCredits: b.SinkBalanceCredits,
	}, nil
}

// LeaseCharges hands out charges to be posted.
func (s *Server) LeaseCharges(ctx context.Context, req *billingsvcv1.LeaseChargesRequest) (*billingsvcv1.LeaseChargesResponse, error) {
	limit, seconds := int(req.GetMaxCharges()), req.GetLeaseSeconds()
	if limit == 0 {
		limit = defaultLeases
	}
	if seconds == 0 {
		seconds = defaultLeaseSeconds
	}
	leases, err := s.svc.Lease(ctx, req.GetWorker(), limit, time.Duration(seconds)*time.Second)
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.LeaseChargesResponse{Leases: leasesOf(leases)}, nil
}

// SettleCharge records the outcome of one attempt.
func (s *Server) SettleCharge(ctx context.Context, req *billingsvcv1.SettleChargeRequest) (*billingsvcv1.SettleChargeResponse, error) {
	outcome, err := outcomeOf(req.GetOutcome())
	if err != nil {
		return nil, err
	}
	retry, err := milliseconds(req.GetRetryAfterMs())
	if err != nil {
		return nil, err
	}
	c, err := s.svc.Settle(ctx, billing.Settlement{
		ChargeID: req.GetChargeId(), LeaseToken: req.GetLeaseToken(), Outcome: outcome,
		Proof: req.GetProof(), Error: req.GetError(), RetryAfter: retry,
		AppliedNanoUSD: money.NanoUSD(req.GetAppliedNanoUsd()), SinkBalanceCredits: req.GetSinkBalanceCredits(),
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SettleChargeResponse{Charge: chargeOf(c)}, nil
}

// RequeueCharges makes dead charges due again.
func (s *Server) RequeueCharges(ctx context.Context, req *billingsvcv1.RequeueChargesRequest) (*billingsvcv1.RequeueChargesResponse, error) {
	charges, err := s.svc.Requeue(ctx, req.GetChargeIds())
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.RequeueChargesResponse{Charges: chargesOf(charges)}, nil
}

// AuditBilling checks events, charges and balances against each other.
func (s *Server) AuditBilling(ctx context.Context, _ *billingsvcv1.AuditBillingRequest) (*billingsvcv1.AuditBillingResponse, error) {
	a, err := s.svc.Audit(ctx)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.AuditBillingResponse{
		Quarantined: a.Quarantined, QuarantinedNanoUsd: int64(a.QuarantinedNanoUSD), Faults: a.Faults,
	}
	for _, t := range a.Teams {
		resp.Teams = append(resp.Teams, &billingsvcv1.TeamBilling{
			TeamId: t.TeamID, Events: t.Events, CostNanoUsd: int64(t.CostNanoUSD), BilledNanoUsd: int64(t.BilledNanoUSD),
			ChargedNanoUsd: int64(t.ChargedNanoUSD), PostedNanoUsd: int64(t.PostedNanoUSD), CarriedNanoUsd: int64(t.CarriedNanoUSD),
		})
	}
	return resp, nil
}
