// Package rpc answers BillingService: it translates, nothing else.
package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
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
	rule, err := s.svc.TopUpRule(ctx, b.TeamID)
	if err != nil {
		return nil, err
	}
	paused, err := s.paused(ctx)
	if err != nil {
		return nil, err
	}
	resp := balanceOf(b, paused[""] || paused[b.TeamID])
	if rule.AmountNanoUSD > 0 {
		resp.TopUp = ruleOf(rule)
	}
	return resp, nil
}

// LeaseCharges hands out charges to be posted.
func (s *Server) LeaseCharges(ctx context.Context, req *billingsvcv1.LeaseChargesRequest) (*billingsvcv1.LeaseChargesResponse, error) {
	limit, hold := leaseSize(req.GetMaxCharges(), req.GetLeaseSeconds())
	leases, err := s.svc.Lease(ctx, req.GetWorker(), limit, hold, req.GetMarksSent())
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.LeaseChargesResponse{Leases: leasesOf(leases)}, nil
}

// MarkSent records that a leased charge is about to be sent.
func (s *Server) MarkSent(ctx context.Context, req *billingsvcv1.MarkSentRequest) (*billingsvcv1.MarkSentResponse, error) {
	c, err := s.svc.MarkSent(ctx, req.GetChargeId(), req.GetLeaseToken(), billing.Via{Device: req.GetDevice(), Key: req.GetKey()})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.MarkSentResponse{Charge: chargeOf(c)}, nil
}

// RenewLease prolongs a lease of a charge.
func (s *Server) RenewLease(ctx context.Context, req *billingsvcv1.RenewLeaseRequest) (*billingsvcv1.RenewLeaseResponse, error) {
	_, hold := leaseSize(1, req.GetLeaseSeconds())
	until, err := s.svc.Renew(ctx, req.GetChargeId(), req.GetLeaseToken(), hold)
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.RenewLeaseResponse{ExpiresAt: timestamppb.New(until)}, nil
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
		NotSent: req.GetNotSent(), KeyUsedUp: req.GetKeyUsedUp(),
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.SettleChargeResponse{Charge: chargeOf(c)}, nil
}

// RequeueCharges makes dead charges due again.
func (s *Server) RequeueCharges(ctx context.Context, req *billingsvcv1.RequeueChargesRequest) (*billingsvcv1.RequeueChargesResponse, error) {
	f := req.GetFilter()
	out, err := s.svc.Requeue(ctx, billing.Requeue{
		ChargeIDs: req.GetChargeIds(), DryRun: req.GetDryRun(), By: billing.By{Actor: req.GetActor(), Reason: req.GetReason()},
		VerifiedNotApplied: req.GetVerifiedNotApplied(),
		Filter: billing.ChargeFilter{
			TeamID: f.GetTeamId(), ErrorContains: f.GetErrorContains(), FrozenAfter: pointTo(f.GetFrozenAfter()),
			FrozenBefore: pointTo(f.GetFrozenBefore()), Max: int(f.GetMaxCharges()),
		},
	})
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.RequeueChargesResponse{Charges: chargesOf(out.Charges), UnverifiedChargeIds: out.Unverified}, nil
}

// ResolveCharge settles a charge by hand.
func (s *Server) ResolveCharge(ctx context.Context, req *billingsvcv1.ResolveChargeRequest) (*billingsvcv1.ResolveChargeResponse, error) {
	r := billing.Resolve{
		ChargeID: req.GetChargeId(), NewKey: req.GetNewKey(), DryRun: req.GetDryRun(),
		By: billing.By{Actor: req.GetActor(), Reason: req.GetReason()},
	}
	applied := money.NanoUSD(req.GetAppliedNanoUsd())
	switch req.GetResolution() {
	case billingsvcv1.Resolution_RESOLUTION_APPLIED:
		r.Applied = &applied
	case billingsvcv1.Resolution_RESOLUTION_NOT_APPLIED:
		if applied != 0 {
			return nil, fault.Errorf(fault.Invalid, "applied_nano_usd is of a charge that was applied")
		}
	default:
		return nil, errNoResolution()
	}
	c, err := s.svc.Resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	return &billingsvcv1.ResolveChargeResponse{Charge: chargeOf(c)}, nil
}

func errNoResolution() error { return fault.Errorf(fault.Invalid, "resolution is not set") }

// AuditBilling checks events, charges and balances against each other.
func (s *Server) AuditBilling(ctx context.Context, req *billingsvcv1.AuditBillingRequest) (*billingsvcv1.AuditBillingResponse, error) {
	a, err := s.svc.Audit(ctx, req.GetFull())
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.AuditBillingResponse{
		Quarantined: a.Quarantined, QuarantinedNanoUsd: int64(a.QuarantinedNanoUSD), Faults: a.Faults,
		EventsChecked: a.Checked, EventsTrusted: a.Trusted,
	}
	for _, t := range a.Teams {
		resp.Teams = append(resp.Teams, &billingsvcv1.TeamBilling{
			TeamId: t.TeamID, Events: t.Events, CostNanoUsd: int64(t.CostNanoUSD), BilledNanoUsd: int64(t.BilledNanoUSD),
			ChargedNanoUsd: int64(t.ChargedNanoUSD), PostedNanoUsd: int64(t.PostedNanoUSD), CarriedNanoUsd: int64(t.CarriedNanoUSD),
			ShortNanoUsd: int64(t.ShortNanoUSD), DeadNanoUsd: int64(t.DeadNanoUSD), DoubtfulNanoUsd: int64(t.DoubtfulNanoUSD),
		})
	}
	for _, t := range a.Read {
		resp.Read = append(resp.Read, &billingsvcv1.TeamRead{TeamId: t.TeamID, CostNanoUsd: int64(t.CostNanoUSD)})
	}
	return resp, nil
}
