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
}

type entry struct {
	*billingsvcv1.Charge
	token  int64
	leased bool
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
		if !open || busy[c.GetTeamId()] || len(resp.GetLeases()) == int(req.GetMaxCharges()) {
			continue
		}
		busy[c.GetTeamId()] = true
		c.leased, c.token, c.Attempts = true, c.token+1, c.Attempts+1
		if c.FirstSentAt == nil {
			c.FirstSentAt = timestamppb.Now()
		}
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
		c.leased, c.Proof, c.LastError = false, req.GetProof(), req.GetError()
		c.waits = append(c.waits, req.GetRetryAfterMs())
		switch req.GetOutcome() {
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_APPLIED:
			c.State = billingsvcv1.ChargeState_CHARGE_STATE_POSTED
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_PARTLY_APPLIED:
			c.State = billingsvcv1.ChargeState_CHARGE_STATE_SHORT
			c.ShortfallNanoUsd = c.GetAmountNanoUsd() - req.GetAppliedNanoUsd()
		case billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_UNKNOWN:
			c.State = billingsvcv1.ChargeState_CHARGE_STATE_AMBIGUOUS
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
			if c.GetChargeId() == id && c.GetState() == billingsvcv1.ChargeState_CHARGE_STATE_DEAD {
				c.State = billingsvcv1.ChargeState_CHARGE_STATE_PENDING
				resp.Charges = append(resp.Charges, proto.CloneOf(c.Charge))
			}
		}
	}
	return resp, nil
}
