package rpc

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// paged is what every request for a list has.
type paged interface {
	GetPageSize() int32
	GetPageToken() string
}

// before reads the size of a page and the id that it begins before.
func before(req paged) (size int, id string, err error) {
	if size, err = pageSize(req.GetPageSize()); err != nil || req.GetPageToken() == "" {
		return size, "", err
	}
	list, err := parts(req.GetPageToken(), 1)
	if err != nil {
		return 0, "", err
	}
	return size, list[0], nil
}

// page asks for one item more than it shows, which tells whether there is a
// next page, and turns them into messages.
func page[T, M any](list []T, size int, id func(T) string, to func(T) M) (items []M, next string) {
	if len(list) > size {
		list = list[:size]
		next = token(id(list[size-1]))
	}
	for _, item := range list {
		items = append(items, to(item))
	}
	return items, next
}

// history reads what lists of the past have in common.
func history(req paged, teamID string) (billing.HistoryQuery, int, error) {
	size, id, err := before(req)
	return billing.HistoryQuery{TeamID: teamID, Before: id, Limit: size + 1}, size, err
}

// ListOperations lists what people did.
func (s *Server) ListOperations(ctx context.Context, req *billingsvcv1.ListOperationsRequest) (*billingsvcv1.ListOperationsResponse, error) {
	q, size, err := history(req, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	q.Action = req.GetAction()
	list, err := s.svc.Operations(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListOperationsResponse{}
	resp.Operations, resp.NextPageToken = page(list, size, func(o billing.Operation) string { return o.OperationID }, operationOf)
	return resp, nil
}

func operationOf(o billing.Operation) *billingsvcv1.Operation {
	return &billingsvcv1.Operation{
		OperationId: o.OperationID, Action: o.Action, TeamId: o.TeamID, Actor: o.Actor, Reason: o.Reason,
		Details: string(o.Details), CreatedAt: timestamppb.New(o.CreatedAt),
	}
}

// ListTransitions lists changes of gates.
func (s *Server) ListTransitions(ctx context.Context, req *billingsvcv1.ListTransitionsRequest) (*billingsvcv1.ListTransitionsResponse, error) {
	q, size, err := history(req, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	list, err := s.svc.Transitions(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListTransitionsResponse{}
	resp.Transitions, resp.NextPageToken = page(list, size, func(t billing.Transition) string { return t.TransitionID }, transitionOf)
	return resp, nil
}

func transitionOf(t billing.Transition) *billingsvcv1.Transition {
	return &billingsvcv1.Transition{
		TransitionId: t.TransitionID, TeamId: t.TeamID, From: gateStates[t.FromState], To: gateStates[t.ToState],
		Cause: string(t.Cause), Reason: t.Reason, ShadowNanoUsd: int64(t.ShadowNanoUSD), CreatedAt: timestamppb.New(t.CreatedAt),
	}
}

// ListReconciliations lists reconciliations.
func (s *Server) ListReconciliations(ctx context.Context, req *billingsvcv1.ListReconciliationsRequest) (*billingsvcv1.ListReconciliationsResponse, error) {
	q, size, err := history(req, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	q.OnlyFaults = req.GetOnlyFaults()
	list, err := s.svc.Reconciliations(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListReconciliationsResponse{}
	resp.Reconciliations, resp.NextPageToken = page(list, size,
		func(r billing.Reconciliation) string { return r.ReconciliationID }, reconciliationOf)
	return resp, nil
}

// ListTopUps lists top-ups.
func (s *Server) ListTopUps(ctx context.Context, req *billingsvcv1.ListTopUpsRequest) (*billingsvcv1.ListTopUpsResponse, error) {
	q, size, err := history(req, req.GetTeamId())
	if err != nil {
		return nil, err
	}
	list, err := s.svc.TopUps(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListTopUpsResponse{}
	resp.TopUps, resp.NextPageToken = page(list, size, func(t billing.TopUp) string { return t.TopUpID }, topUpOf)
	return resp, nil
}

// ListMarkups lists every markup that was ever set.
func (s *Server) ListMarkups(ctx context.Context, req *billingsvcv1.ListMarkupsRequest) (*billingsvcv1.ListMarkupsResponse, error) {
	size, id, err := before(req)
	if err != nil {
		return nil, err
	}
	list, err := s.svc.ListMarkups(ctx, req.GetTeamId(), id, size+1)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListMarkupsResponse{DefaultMarkup: s.svc.StandardMarkup().String()}
	resp.Markups, resp.NextPageToken = page(list, size, func(m billing.TeamMarkup) string { return m.MarkupID }, markupOf)
	return resp, nil
}

// ListQuarantine lists rows that could not be billed.
func (s *Server) ListQuarantine(ctx context.Context, req *billingsvcv1.ListQuarantineRequest) (*billingsvcv1.ListQuarantineResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	q := billing.QuarantineQuery{TeamID: req.GetTeamId(), IncludeRerated: req.GetIncludeRerated(), Limit: size + 1}
	if req.GetPageToken() != "" {
		if q.After, err = placeToken(req.GetPageToken()); err != nil {
			return nil, err
		}
	}
	list, err := s.svc.Quarantined(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListQuarantineResponse{}
	resp.Rows, resp.NextPageToken = page(list, size, func(e billing.QuarantineEntry) string {
		return strconv.FormatInt(e.Row.LogID, 10) + " " + strconv.FormatInt(e.Row.Seq, 10)
	}, quarantinedOf)
	return resp, nil
}

func placeToken(token string) (billing.Place, error) {
	list, err := parts(token, 2)
	if err != nil {
		return billing.Place{}, err
	}
	logID, err1 := strconv.ParseInt(list[0], 10, 64)
	seq, err2 := strconv.ParseInt(list[1], 10, 64)
	if err1 != nil || err2 != nil {
		return billing.Place{}, fault.Errorf(fault.Invalid, "page_token is not one of ours")
	}
	return billing.Place{LogID: logID, Seq: seq}, nil
}

// ListBalances lists the balances of all teams.
func (s *Server) ListBalances(ctx context.Context, req *billingsvcv1.ListBalancesRequest) (*billingsvcv1.ListBalancesResponse, error) {
	size, after, err := before(req)
	if err != nil {
		return nil, err
	}
	state, err := gateStateFrom(req.GetState())
	if err != nil {
		return nil, err
	}
	list, err := s.svc.Balances(ctx, billing.BalanceQuery{State: state, After: after, Limit: size + 1})
	if err != nil {
		return nil, err
	}
	paused, err := s.paused(ctx)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListBalancesResponse{}
	resp.Balances, resp.NextPageToken = page(list, size, func(b billing.Balance) string { return b.TeamID },
		func(b billing.Balance) *billingsvcv1.GetBalanceResponse {
			return balanceOf(b, paused[""] || paused[b.TeamID])
		})
	return resp, nil
}

// paused tells which teams are paused; all, when the empty one is.
func (s *Server) paused(ctx context.Context) (map[string]bool, error) {
	list, err := s.svc.Pauses(ctx)
	paused := map[string]bool{}
	for _, p := range list {
		paused[p.TeamID] = true
	}
	return paused, err
}
