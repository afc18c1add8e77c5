package billingsvc

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysvcv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// switchboard is a TeamService with one team. Its first call for a status is
// lost on the way back.
type switchboard struct {
	keysvcv1.UnimplementedTeamServiceServer
	status chan keysvcv1.TeamStatus // as it was set
	calls  int
}

func (s *switchboard) SetTeamStatus(_ context.Context, req *keysvcv1.SetTeamStatusRequest) (*keysvcv1.SetTeamStatusResponse, error) {
	if s.calls++; s.calls == 1 {
		return nil, status.Error(codes.Unavailable, "lost")
	}
	if req.GetTeamId() != "acme" {
		return nil, status.Error(codes.NotFound, "no such team")
	}
	s.status <- req.GetStatus()
	return &keysvcv1.SetTeamStatusResponse{GateGeneration: req.GetGateGeneration()}, nil
}

func switchboardAt(t *testing.T) (*switchboard, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &switchboard{status: make(chan keysvcv1.TeamStatus, 10)}
	server := grpc.NewServer()
	keysvcv1.RegisterTeamServiceServer(server, s)
	go server.Serve(lis) //nolint:errcheck // it ends with Stop
	t.Cleanup(server.Stop)
	return s, lis.Addr().String()
}

// next waits for the next status that keysvc is told.
func (s *switchboard) next(t *testing.T) keysvcv1.TeamStatus {
	t.Helper()
	select {
	case got := <-s.status:
		return got
	case <-t.Context().Done():
		t.Fatal("keysvc was told nothing")
		return 0
	}
}

// From the ledger to keysvc and back: spend uses the trial up, keysvc hears of
// it in spite of a lost call, and a reported top-up opens the gate.
func TestTheGateReachesKeysvcAndOpensAgain(t *testing.T) {
	t.Parallel()
	keysvc, addr := switchboardAt(t)
	api, _ := startWith(t, ledger{}, map[string]string{"KEYSVC_TARGET": addr, "BILLING_TRIAL_CREDITS": "0.05"})
	ctx := t.Context()
	if _, err := api.SyncNow(ctx, &billingsvcv1.SyncNowRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := keysvc.next(t); got != keysvcv1.TeamStatus_TEAM_STATUS_EXHAUSTED {
		t.Errorf("keysvc was told %s, want exhausted", got)
	}
	leases, err := api.LeaseReconciliations(ctx, &billingsvcv1.LeaseReconciliationsRequest{Worker: "w", TeamIds: []string{"acme"}})
	if err != nil || len(leases.GetLeases()) != 1 {
		t.Fatalf("LeaseReconciliations = %v, %v, want one", leases, err)
	}
	report := &billingsvcv1.ReportBalanceRequest{
		TeamId: "acme", LeaseToken: leases.GetLeases()[0].GetLeaseToken(), BalanceCredits: "10.00000004999", UsageCredits: "0",
		NextResetAt: timestamppb.Now(),
	}
	got, err := api.ReportBalance(ctx, report)
	if err != nil || got.GetGate().GetState() != billingsvcv1.GateState_GATE_STATE_ACTIVE || got.GetShadowNanoUsd() != 100_000_000-630_000 ||
		got.GetReconciliation().GetClass() != billingsvcv1.DriftClass_DRIFT_CLASS_BASELINE {
		t.Errorf("ReportBalance = %v, %v, want active with 10 credits less what is unconfirmed", got, err)
	}
	if got := keysvc.next(t); got != keysvcv1.TeamStatus_TEAM_STATUS_ACTIVE {
		t.Errorf("keysvc was told %s, want active", got)
	}
	report.BalanceCredits = "1e99"
	if _, err := api.ReportBalance(ctx, report); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ReportBalance of nonsense = %v, want INVALID_ARGUMENT", err)
	}
}

// Every RPC that changes something, once over the wire.
func TestServiceTakesCorrectionsAndOrders(t *testing.T) {
	t.Parallel()
	api, _ := start(t, ledger{})
	ctx := t.Context()
	if _, err := api.SyncNow(ctx, &billingsvcv1.SyncNowRequest{}); err != nil {
		t.Fatal(err)
	}
	event, err := api.RecordEvent(ctx, &billingsvcv1.RecordEventRequest{
		IdempotencyKey: "compute:1", TeamId: "acme", EventType: "compute", Quantity: 30, PriceNanoUsd: 1000, SessionIds: []string{"a", "b"},
	})
	if err != nil || !event.GetCreated() || event.GetBillingEvent().GetCredits() != "0.0001" {
		t.Errorf("RecordEvent = %v, %v", event, err)
	}
	fixed, err := api.AdjustBalance(ctx, &billingsvcv1.AdjustBalanceRequest{
		TeamId: "acme", IdempotencyKey: "1", PriceNanoUsd: -500, Reason: "half of it", Corrects: "compute:1",
	})
	if err != nil || fixed.GetBillingEvent().GetCorrects() != "compute:1" || fixed.GetBillingEvent().GetEventType() != "adjustment" {
		t.Errorf("AdjustBalance = %v, %v", fixed, err)
	}
	if _, err := api.SetMarkup(ctx, &billingsvcv1.SetMarkupRequest{TeamId: "acme", Markup: "1.5", Reason: "contract"}); err != nil {
		t.Errorf("SetMarkup: %v", err)
	}
	if m, err := api.ListMarkups(ctx, &billingsvcv1.ListMarkupsRequest{}); err != nil || len(m.GetMarkups()) != 1 || m.GetDefaultMarkup() != "3" {
		t.Errorf("ListMarkups = %v, %v", m, err)
	}
	if _, err := api.PauseTeam(ctx, &billingsvcv1.PauseTeamRequest{Reason: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("PauseTeam of neither a team nor all = %v, want INVALID_ARGUMENT", err)
	}
	if _, err := api.PauseTeam(ctx, &billingsvcv1.PauseTeamRequest{All: true, Reason: "restore"}); err != nil {
		t.Errorf("PauseTeam: %v", err)
	}
	list, err := api.ListBalances(ctx, &billingsvcv1.ListBalancesRequest{PageSize: 1})
	if err != nil || len(list.GetBalances()) != 1 || !list.GetBalances()[0].GetPaused() || list.GetNextPageToken() == "" {
		t.Errorf("ListBalances = %v, %v, want one, paused, and more", list, err)
	}
	if p, err := api.ListPauses(ctx, &billingsvcv1.ListPausesRequest{}); err != nil || len(p.GetPauses()) != 1 {
		t.Errorf("ListPauses = %v, %v", p, err)
	}
	if r, err := api.ResumeTeam(ctx, &billingsvcv1.ResumeTeamRequest{All: true}); err != nil || !r.GetResumed() {
		t.Errorf("ResumeTeam = %v, %v", r, err)
	}
	if g, err := api.SuspendTeam(ctx, &billingsvcv1.SuspendTeamRequest{TeamId: "acme", Reason: "fraud"}); err != nil || g.GetGate().GetOpen() {
		t.Errorf("SuspendTeam = %v, %v, want it shut", g, err)
	}
	if _, err := api.UnsuspendTeam(ctx, &billingsvcv1.UnsuspendTeamRequest{TeamId: "acme"}); err != nil {
		t.Errorf("UnsuspendTeam: %v", err)
	}
	if l, err := api.ListTransitions(ctx, &billingsvcv1.ListTransitionsRequest{TeamId: "acme"}); err != nil || len(l.GetTransitions()) != 2 {
		t.Errorf("ListTransitions = %v, %v, want two", l, err)
	}
	if _, err := api.SetTopUp(ctx, &billingsvcv1.SetTopUpRequest{TeamId: "acme", Enabled: true, AmountNanoUsd: 5, MaxPerMonth: 1}); err != nil {
		t.Errorf("SetTopUp: %v", err)
	}
	if l, err := api.LeaseTopUps(ctx, &billingsvcv1.LeaseTopUpsRequest{Worker: "w"}); err != nil || len(l.GetLeases()) != 0 {
		t.Errorf("LeaseTopUps = %v, %v, want none: they are off", l, err)
	}
	ops := &billingsvcv1.ListOperationsRequest{PageSize: 4}
	var actions []string
	for {
		page, err := api.ListOperations(ctx, ops)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.GetOperations() {
			actions = append(actions, o.GetAction())
		}
		if ops.PageToken = page.GetNextPageToken(); ops.PageToken == "" {
			break
		}
	}
	if len(actions) != 7 || actions[6] != "adjust" {
		t.Errorf("operations = %v, want seven, the adjustment first of all", actions)
	}
	if q, err := api.ListQuarantine(ctx, &billingsvcv1.ListQuarantineRequest{}); err != nil || len(q.GetRows()) != 0 {
		t.Errorf("ListQuarantine = %v, %v", q, err)
	}
	if a, err := api.AuditBilling(ctx, &billingsvcv1.AuditBillingRequest{}); err != nil || len(a.GetFaults()) != 0 {
		t.Errorf("AuditBilling = %v, %v, want no fault", a, err)
	}
}
