package outboxsvc

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
)

// book is a BillingService in memory with the rules that the outbox lives by:
// one charge of a team in flight, its oldest open one, fenced by tokens. Waits
// are not observed: what is open is due.
type book struct {
	billingsvcv1.UnimplementedBillingServiceServer
	mu      sync.Mutex
	charges []*entry // in order of team and seq
	nudged  []string
	paused  map[string]bool
	reports []*billingsvcv1.ReportBalanceRequest
	topUps  []*billingsvcv1.SettleTopUpRequest
	buy     *billingsvcv1.TopUp // to be leased once

	resolved []*billingsvcv1.ResolveChargeRequest
}

type entry struct {
	*billingsvcv1.Charge
	token  int64
	leased bool
	marked bool
	waits  []int64
}

func (b *book) add(id, team string, seq, amount int64) {
	b.charges = append(b.charges, &entry{Charge: &billingsvcv1.Charge{
		ChargeId: id, TeamId: team, Seq: seq, AmountNanoUsd: amount, EventCount: 1,
		State: billingsvcv1.ChargeState_CHARGE_STATE_PENDING, FrozenAt: timestamppb.Now(),
	}})
}

// get returns a copy of a charge.
func (b *book) get(id string) *billingsvcv1.Charge {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.charges {
		if c.GetChargeId() == id {
			return proto.CloneOf(c.Charge)
		}
	}
	return nil
}

func (b *book) LeaseCharges(_ context.Context, req *billingsvcv1.LeaseChargesRequest) (*billingsvcv1.LeaseChargesResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &billingsvcv1.LeaseChargesResponse{}
	busy := map[string]bool{}
	for _, c := range b.charges {
		busy[c.GetTeamId()] = busy[c.GetTeamId()] || c.leased
	}
	for _, c := range b.charges {
		open := c.GetState() == billingsvcv1.ChargeState_CHARGE_STATE_PENDING || c.GetState() == billingsvcv1.ChargeState_CHARGE_STATE_AMBIGUOUS
		if !open || b.paused[c.GetTeamId()] || busy[c.GetTeamId()] || len(resp.GetLeases()) == int(req.GetMaxCharges()) {
			continue
		}
		busy[c.GetTeamId()] = true
		c.leased, c.token, c.Attempts = true, c.token+1, c.Attempts+1
		c.marked = false
		resp.Leases = append(resp.Leases, &billingsvcv1.Lease{Charge: proto.CloneOf(c.Charge), LeaseToken: c.token})
	}
	return resp, nil
}

func (b *book) SettleCharge(_ context.Context, req *billingsvcv1.SettleChargeRequest) (*billingsvcv1.SettleChargeResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.charges {
		if c.GetChargeId() != req.GetChargeId() {
			continue
		}
		if !c.leased || c.token != req.GetLeaseToken() {
			return nil, status.Error(codes.Aborted, "no longer leased")
		}
		if req.GetNotSent() == c.marked && !req.GetNotSent() {
			c.SentAttempts++
		}
		c.leased, c.Proof, c.LastError = false, req.GetProof(), req.GetError()
		c.waits = append(c.waits, req.GetRetryAfterMs())
		switch req.GetOutcome() {
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_APPLIED:
			c.State = billingsvcv1.ChargeState_CHARGE_STATE_POSTED
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_PARTLY_APPLIED:
			c.State = billingsvcv1.ChargeState_CHARGE_STATE_SHORT
			c.ShortfallNanoUsd = c.GetAmountNanoUsd() - req.GetAppliedNanoUsd()
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_UNKNOWN:
			c.State, c.Unsure = billingsvcv1.ChargeState_CHARGE_STATE_AMBIGUOUS, true
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_REFUSED:
			c.State = billingsvcv1.ChargeState_CHARGE_STATE_DEAD
		}
		return &billingsvcv1.SettleChargeResponse{Charge: proto.CloneOf(c.Charge)}, nil
	}
	return nil, status.Error(codes.NotFound, "charge not found")
}

func (b *book) ListCharges(_ context.Context, req *billingsvcv1.ListChargesRequest) (*billingsvcv1.ListChargesResponse, error) {
	if req.GetPageSize() > 1000 {
		return nil, status.Error(codes.InvalidArgument, "page_size is not from 1 to 1000")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &billingsvcv1.ListChargesResponse{}
	for _, c := range b.charges {
		if c.GetState() == req.GetState() && (req.GetTeamId() == "" || req.GetTeamId() == c.GetTeamId()) {
			resp.Charges = append(resp.Charges, proto.CloneOf(c.Charge))
		}
	}
	return resp, nil
}

func (b *book) RequeueCharges(_ context.Context, req *billingsvcv1.RequeueChargesRequest) (*billingsvcv1.RequeueChargesResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &billingsvcv1.RequeueChargesResponse{}
	for _, c := range b.charges {
		for _, id := range req.GetChargeIds() {
			if c.GetChargeId() == id && c.GetState() == billingsvcv1.ChargeState_CHARGE_STATE_DEAD && !req.GetDryRun() {
				c.State = billingsvcv1.ChargeState_CHARGE_STATE_PENDING
				resp.Charges = append(resp.Charges, proto.CloneOf(c.Charge))
			}
		}
	}
	return resp, nil
}

func (b *book) ResolveCharge(_ context.Context, req *billingsvcv1.ResolveChargeRequest) (*billingsvcv1.ResolveChargeResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resolved = append(b.resolved, req)
	return &billingsvcv1.ResolveChargeResponse{Charge: &billingsvcv1.Charge{
		ChargeId: req.GetChargeId(), TeamId: "acme", AmountNanoUsd: 40_000_000, ShortfallNanoUsd: 10_000_000,
		State: billingsvcv1.ChargeState_CHARGE_STATE_SHORT,
	}}, nil
}

// settled says whether no charge is open.
func (b *book) settled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.charges {
		if c.GetState() != billingsvcv1.ChargeState_CHARGE_STATE_POSTED {
			return false
		}
	}
	return true
}

func (b *book) MarkSent(_ context.Context, req *billingsvcv1.MarkSentRequest) (*billingsvcv1.MarkSentResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.charges {
		if c.GetChargeId() != req.GetChargeId() || c.token != req.GetLeaseToken() || !c.leased {
			continue
		}
		c.marked = true
		if !c.GetUnsure() || c.GetSentDevice() == "" {
			c.SentDevice, c.SentKey = req.GetDevice(), req.GetKey()
		}
		if c.FirstSentAt == nil {
			c.FirstSentAt = timestamppb.Now()
		}
		return &billingsvcv1.MarkSentResponse{Charge: proto.CloneOf(c.Charge)}, nil
	}
	return nil, status.Error(codes.Aborted, "no longer leased")
}

func (b *book) NudgeTeam(_ context.Context, req *billingsvcv1.NudgeTeamRequest) (*billingsvcv1.NudgeTeamResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nudged = append(b.nudged, req.GetTeamId())
	return &billingsvcv1.NudgeTeamResponse{Known: true}, nil
}

func (b *book) PauseTeam(_ context.Context, req *billingsvcv1.PauseTeamRequest) (*billingsvcv1.PauseTeamResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused = map[string]bool{req.GetTeamId(): true}
	return &billingsvcv1.PauseTeamResponse{}, nil
}

func (b *book) ResumeTeam(_ context.Context, req *billingsvcv1.ResumeTeamRequest) (*billingsvcv1.ResumeTeamResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.paused[req.GetTeamId()]
	b.paused = nil
	return &billingsvcv1.ResumeTeamResponse{Resumed: was}, nil
}

// LeaseReconciliations hands out the teams that are named, or that were nudged.
func (b *book) LeaseReconciliations(_ context.Context, req *billingsvcv1.LeaseReconciliationsRequest) (*billingsvcv1.LeaseReconciliationsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	teams := req.GetTeamIds()
	if len(teams) == 0 {
		teams, b.nudged = b.nudged, nil
	}
	resp := &billingsvcv1.LeaseReconciliationsResponse{}
	for _, t := range teams {
		resp.Leases = append(resp.Leases, &billingsvcv1.ReconciliationLease{TeamId: t, LeaseToken: int64(len(b.reports) + 1)})
	}
	return resp, nil
}

func (b *book) ReportBalance(_ context.Context, req *billingsvcv1.ReportBalanceRequest) (*billingsvcv1.ReportBalanceResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, req)
	class := billingsvcv1.DriftClass_DRIFT_CLASS_NONE
	if req.GetNoBalance() {
		class = billingsvcv1.DriftClass_DRIFT_CLASS_NO_BALANCE
	}
	return &billingsvcv1.ReportBalanceResponse{Reconciliation: &billingsvcv1.Reconciliation{TeamId: req.GetTeamId(), Class: class, Fixed: true}}, nil
}

func (b *book) LeaseTopUps(context.Context, *billingsvcv1.LeaseTopUpsRequest) (*billingsvcv1.LeaseTopUpsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &billingsvcv1.LeaseTopUpsResponse{}
	if b.buy != nil {
		resp.Leases = append(resp.Leases, &billingsvcv1.TopUpLease{TopUp: b.buy, LeaseToken: 1})
		b.buy = nil
	}
	return resp, nil
}

func (b *book) SettleTopUp(_ context.Context, req *billingsvcv1.SettleTopUpRequest) (*billingsvcv1.SettleTopUpResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topUps = append(b.topUps, req)
	return &billingsvcv1.SettleTopUpResponse{}, nil
}

func (b *book) topUpsDone() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.topUps)
}

func (b *book) reported() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.reports)
}
