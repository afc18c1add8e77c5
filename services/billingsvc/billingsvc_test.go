package billingsvc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	proxysvcv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/port"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

const token = "service-token-of-the-test"

func settings(over map[string]string) func(string) string {
	all := map[string]string{
		"DATABASE_URL": "postgres://u:hunter2@localhost/db", "PROXYSVC_TARGET": "localhost:1",
		"LLM_PROXY_MASTER_KEY": "sk-master-key-of-the-test", "LLM_PROXY_SERVICE_TOKEN": token,
	}
	maps.Copy(all, over)
	return func(name string) string { return all[name] }
}

func TestLoadConfigHasDefaults(t *testing.T) {
	t.Parallel()
	cfg, err := LoadConfig(settings(nil))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.SyncInterval != 30*time.Second || cfg.Rules.Markup.String() != "3" || cfg.Serve.GRPCListen != ":9102" || cfg.Serve.HTTPListen != ":8102" {
		t.Errorf("LoadConfig = %+v, want the documented defaults", cfg)
	}
	if shown := fmt.Sprintf("%+v", cfg); strings.Contains(shown, "hunter2") {
		t.Errorf("the configuration shows the password: %s", shown)
	}
}

func TestLoadConfigReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	_, err := LoadConfig(settings(map[string]string{
		"DATABASE_URL": "", "PROXYSVC_TARGET": "", "BILLING_SYNC_INTERVAL": "soon", "LLM_MARKUP": "1.0000001",
		"BILLING_OVERDRAFT_CREDITS": "-1", "BILLING_TRIAL_CREDITS": "lots", "BILLING_TOP_UP": "maybe",
	}))
	for _, name := range []string{
		"DATABASE_URL", "PROXYSVC_TARGET", "BILLING_SYNC_INTERVAL", "LLM_MARKUP", "BILLING_OVERDRAFT_CREDITS", "BILLING_TRIAL_CREDITS", "BILLING_TOP_UP",
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("LoadConfig = %v, want a fault of %s", err, name)
		}
	}
}

// ledger is a SpendService with one closed log of three rows.
type ledger struct {
	proxysvcv1.UnimplementedSpendServiceServer
	lost bool
}

func (l ledger) ListLogs(_ context.Context, req *proxysvcv1.ListLogsRequest) (*proxysvcv1.ListLogsResponse, error) {
	if req.GetAfterLogId() >= 7 {
		return &proxysvcv1.ListLogsResponse{}, nil
	}
	return &proxysvcv1.ListLogsResponse{Logs: []*proxysvcv1.Log{{LogId: 7, LastSeq: 3, Closed: true}}}, nil
}

func (l ledger) ReadSpend(_ context.Context, req *proxysvcv1.ReadSpendRequest) (*proxysvcv1.ReadSpendResponse, error) {
	if l.lost {
		return nil, status.Error(codes.DataLoss, "row 2 of log 7 is missing")
	}
	resp := &proxysvcv1.ReadSpendResponse{LastSeq: 3, Closed: true}
	for seq := req.GetAfterSeq() + 1; seq <= 3; seq++ {
		resp.Rows = append(resp.Rows, &proxysvcv1.SpendRow{
			LogId: 7, Seq: seq, RequestId: fmt.Sprint("req_", seq), TeamId: []string{"acme", "zeta"}[seq/3], UserId: "session_1",
			Model: "claude", CostNanoUsd: 105_000, EndedAt: timestamppb.New(time.Date(2026, 11, 24, 0, 0, int(seq), 0, time.UTC)),
			Usage: &proxysvcv1.Usage{InputTokens: 3, CacheWrite_5MInputTokens: 2},
		})
	}
	return resp, nil
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := port.Free("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// start runs the service on a fresh database and the given ledger, and returns
// its client and HTTP address.
func start(t *testing.T, l ledger) (billingsvcv1.BillingServiceClient, string) {
	t.Helper()
	return startWith(t, l, nil)
}

// startWith is start with some more settings.
func startWith(t *testing.T, l ledger, over map[string]string) (billingsvcv1.BillingServiceClient, string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxysvc := grpc.NewServer()
	proxysvcv1.RegisterSpendServiceServer(proxysvc, l)
	go proxysvc.Serve(lis) //nolint:errcheck // it ends with Stop
	t.Cleanup(proxysvc.Stop)

	grpcAddr, httpAddr := freeAddr(t), freeAddr(t)
	set := map[string]string{
		"DATABASE_URL": pgtest.Empty(t), "PROXYSVC_TARGET": lis.Addr().String(),
		"BILLINGSVC_GRPC_LISTEN": grpcAddr, "BILLINGSVC_HTTP_LISTEN": httpAddr, "BILLING_SYNC_INTERVAL": "1h", "LOG_LEVEL": "error",
	}
	maps.Copy(set, over)
	cfg, err := LoadConfig(settings(set))
	if err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want a clean drain", err)
		}
	})
	conn, err := serve.Caller{Token: secret.New(token)}.Dial(cfg.Serve.GRPCListen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := billingsvcv1.NewBillingServiceClient(conn)
	if _, err := client.GetBalance(t.Context(), &billingsvcv1.GetBalanceRequest{TeamId: "acme"}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return client, "http://" + httpAddr
}

func TestServiceBillsAndHandsOutCharges(t *testing.T) {
	t.Parallel()
	api, _ := start(t, ledger{})
	ctx := t.Context()
	if _, err := api.SyncNow(ctx, &billingsvcv1.SyncNowRequest{}); err != nil {
		t.Fatal(err)
	}
	leased, err := api.LeaseCharges(ctx, &billingsvcv1.LeaseChargesRequest{Worker: "w"})
	if err != nil || len(leased.GetLeases()) != 2 {
		t.Fatalf("LeaseCharges = %v, %v, want one of each team", leased, err)
	}
	leases := leased.GetLeases()
	slices.SortFunc(leases, func(a, b *billingsvcv1.Lease) int {
		return strings.Compare(a.GetCharge().GetTeamId(), b.GetCharge().GetTeamId())
	})
	settled, err := api.SettleCharge(ctx, &billingsvcv1.SettleChargeRequest{
		ChargeId: leases[0].GetCharge().GetChargeId(), LeaseToken: leases[0].GetLeaseToken(),
		Outcome: billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_APPLIED, Proof: "deductions", SinkBalanceCredits: "12.5",
	})
	if c := settled.GetCharge(); err != nil || c.GetState() != billingsvcv1.ChargeState_CHARGE_STATE_POSTED || c.GetCredits() != "0.063" ||
		c.GetEventCount() != 2 || c.GetSettledAt() == nil {
		t.Errorf("SettleCharge = %v, %v, want 2 events for 0.063 credits posted", settled, err)
	}
	got, err := api.GetBalance(ctx, &billingsvcv1.GetBalanceRequest{TeamId: "acme"})
	want := &billingsvcv1.GetBalanceResponse{
		TeamId: "acme", BilledNanoUsd: 630_000, ChargedNanoUsd: 630_000, PostedNanoUsd: 630_000, SinkBalanceCredits: "12.5",
		ShadowNanoUsd: -630_000, ShadowCredits: "-0.063",
		Gate: &billingsvcv1.Gate{TeamId: "acme", State: billingsvcv1.GateState_GATE_STATE_UNCONFIGURED, Open: true},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("GetBalance %v (-want +got):\n%s", err, diff)
	}
	_, err = api.SettleCharge(ctx, &billingsvcv1.SettleChargeRequest{
		ChargeId: leases[1].GetCharge().GetChargeId(), LeaseToken: 99, Outcome: billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_UNKNOWN,
	})
	if status.Code(err) != codes.Aborted {
		t.Errorf("SettleCharge with another token = %v, want ABORTED", err)
	}
	if audit, err := api.AuditBilling(ctx, &billingsvcv1.AuditBillingRequest{}); err != nil || len(audit.GetFaults()) != 0 || len(audit.GetTeams()) != 2 {
		t.Errorf("AuditBilling = %v, %v, want two teams and no fault", audit, err)
	}
	dead, err := api.SettleCharge(ctx, &billingsvcv1.SettleChargeRequest{
		ChargeId: leases[1].GetCharge().GetChargeId(), LeaseToken: leases[1].GetLeaseToken(),
		Outcome: billingsvcv1.AttemptOutcome_ATTEMPT_OUTCOME_REFUSED, Error: "400 invalid_inputs",
	})
	if err != nil || dead.GetCharge().GetState() != billingsvcv1.ChargeState_CHARGE_STATE_DEAD {
		t.Fatalf("SettleCharge = %v, %v, want it dead", dead, err)
	}
	again, err := api.RequeueCharges(ctx, &billingsvcv1.RequeueChargesRequest{ChargeIds: []string{dead.GetCharge().GetChargeId()}})
	if err != nil || len(again.GetCharges()) != 1 || again.GetCharges()[0].GetState() != billingsvcv1.ChargeState_CHARGE_STATE_PENDING {
		t.Errorf("RequeueCharges = %v, %v, want it pending", again, err)
	}
}

func TestServiceListsPageByPage(t *testing.T) {
	t.Parallel()
	api, _ := start(t, ledger{})
	ctx := t.Context()
	if _, err := api.SyncNow(ctx, &billingsvcv1.SyncNowRequest{}); err != nil {
		t.Fatal(err)
	}
	var keys []string
	req := &billingsvcv1.ListBillingEventsRequest{PageSize: 1}
	for {
		resp, err := api.ListBillingEvents(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetBillingEvents() {
			keys = append(keys, e.GetIdempotencyKey())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"llm:req_3", "llm:req_2", "llm:req_1"}, keys); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	first, err := api.ListCharges(ctx, &billingsvcv1.ListChargesRequest{PageSize: 1, State: billingsvcv1.ChargeState_CHARGE_STATE_PENDING})
	if err != nil || len(first.GetCharges()) != 1 {
		t.Fatalf("ListCharges = %v, %v, want a page of one", first, err)
	}
	second, err := api.ListCharges(ctx, &billingsvcv1.ListChargesRequest{PageToken: first.GetNextPageToken()})
	if err != nil || len(second.GetCharges()) != 1 || second.GetNextPageToken() != "" ||
		second.GetCharges()[0].GetChargeId() >= first.GetCharges()[0].GetChargeId() {
		t.Errorf("the second page = %v, %v, want the older charge and no more", second, err)
	}
	for _, bad := range []*billingsvcv1.ListChargesRequest{{PageSize: 1001}, {PageSize: -1}, {PageToken: "!"}, {State: 99}} {
		if _, err := api.ListCharges(ctx, bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ListCharges(%v) = %v, want INVALID_ARGUMENT", bad, err)
		}
	}
	if _, err := api.ListBillingEvents(ctx, &billingsvcv1.ListBillingEventsRequest{PageToken: "eA"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ListBillingEvents with a bad token = %v, want INVALID_ARGUMENT", err)
	}
}

func TestServiceAnswersRESTInSnakeCase(t *testing.T) {
	t.Parallel()
	api, url := start(t, ledger{})
	if _, err := api.SyncNow(t.Context(), &billingsvcv1.SyncNowRequest{}); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/billing_events?request_id=req_1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		BillingEvents []struct {
			PriceNanoUSD string   `json:"price_nano_usd"`
			Credits      string   `json:"credits"`
			SessionIDs   []string `json:"session_ids"`
		} `json:"billing_events"`
	}
	if err := json.Unmarshal(raw, &got); err != nil || len(got.BillingEvents) != 1 || got.BillingEvents[0].PriceNanoUSD != "315000" ||
		got.BillingEvents[0].Credits != "0.0315" || len(got.BillingEvents[0].SessionIDs) != 1 {
		t.Errorf("GET billing_events = %s, %v", raw, err)
	}
}

func TestServiceSaysThatTheLedgerLostARow(t *testing.T) {
	t.Parallel()
	api, _ := start(t, ledger{lost: true})
	if _, err := api.SyncNow(t.Context(), &billingsvcv1.SyncNowRequest{}); status.Code(err) != codes.DataLoss {
		t.Errorf("SyncNow = %v, want DATA_LOSS", err)
	}
}
