// Package rpc answers OutboxService: it translates, nothing else.
package rpc

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// Hooks counts webhooks that were taken and refused.
type Hooks func() (taken, refused int64)

// Server implements OutboxService.
type Server struct {
	outboxsvcv1.UnimplementedOutboxServiceServer
	svc   *relay.Service
	sink  string
	hooks Hooks
}

// New makes the server. Sink is the name of where charges go.
func New(svc *relay.Service, sink string, hooks Hooks) *Server {
	return &Server{svc: svc, sink: sink, hooks: hooks}
}

// GetStats tells what this process has delivered since it started.
func (s *Server) GetStats(context.Context, *outboxsvcv1.GetStatsRequest) (*outboxsvcv1.GetStatsResponse, error) {
	st := s.svc.Stats()
	resp := &outboxsvcv1.GetStatsResponse{
		Applied: st.Outcomes[relay.Applied], PartlyApplied: st.Outcomes[relay.PartlyApplied],
		NotApplied: st.Outcomes[relay.NotApplied] + st.Outcomes[relay.NeverApplied],
		Unknown:    st.Outcomes[relay.Unknown], Refused: st.Outcomes[relay.Refused],
		LastPassAt: instant(st.LastPassAt), LastError: st.LastError, SinkConfigured: st.SinkConfigured,
		HaltReason: st.HaltReason, HaltedAt: instant(st.HaltedAt), BreakerOpenUntil: instant(st.BreakerOpenUntil),
		Reconciled: st.Reconciled, ReconcileFailures: st.ReadFailures, Drifts: st.Drifts,
		TopUpsPaid: st.TopUpsPaid, TopUpsDeclined: st.TopUpsDeclined, Undecided: st.Undecided, Sink: s.sink,
	}
	resp.Webhooks, resp.WebhooksRefused = s.hooks()
	return resp, nil
}

// instant writes an instant; nothing for zero.
func instant(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// DeliverNow runs one pass.
func (s *Server) DeliverNow(ctx context.Context, _ *outboxsvcv1.DeliverNowRequest) (*outboxsvcv1.DeliverNowResponse, error) {
	p, err := s.svc.Deliver(ctx)
	if err != nil {
		return nil, err
	}
	return &outboxsvcv1.DeliverNowResponse{Attempts: p.Attempts, Applied: p.Applied}, nil
}

// ListDeadCharges lists charges that were refused for good.
func (s *Server) ListDeadCharges(ctx context.Context, req *outboxsvcv1.ListDeadChargesRequest) (*outboxsvcv1.ListDeadChargesResponse, error) {
	dead, next, err := s.svc.Dead(ctx, relay.DeadQuery{TeamID: req.GetTeamId(), PageSize: req.GetPageSize(), PageToken: req.GetPageToken()})
	if err != nil {
		return nil, err
	}
	resp := &outboxsvcv1.ListDeadChargesResponse{NextPageToken: next}
	for _, d := range dead {
		resp.DeadCharges = append(resp.DeadCharges, &outboxsvcv1.DeadCharge{
			ChargeId: d.ChargeID, TeamId: d.TeamID, AmountNanoUsd: int64(d.AmountNanoUSD),
			Reason: d.Reason, Attempts: d.Attempts, FrozenAt: timestamppb.New(d.FrozenAt),
		})
	}
	return resp, nil
}

// GetSinkBalance reads a team's balance at the sink now.
func (s *Server) GetSinkBalance(ctx context.Context, req *outboxsvcv1.GetSinkBalanceRequest) (*outboxsvcv1.GetSinkBalanceResponse, error) {
	b, err := s.svc.SinkBalance(ctx, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	return &outboxsvcv1.GetSinkBalanceResponse{
		TeamId: req.GetTeamId(), RemainingCredits: b.Remaining, UsedCredits: b.Used, GrantedCredits: b.Granted,
	}, nil
}
