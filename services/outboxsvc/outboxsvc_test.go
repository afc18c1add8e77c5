package outboxsvc

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/port"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

const (
	token  = "service-token-of-the-test"
	apiKey = "am_sk_test_0123456789"
)

func settings(over map[string]string) func(string) string {
	all := map[string]string{
		"BILLINGSVC_TARGET": "localhost:1", "AUTUMN_API_KEY": apiKey,
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
	a := cfg.Autumn
	if cfg.Interval != 2*time.Second || cfg.Concurrency != 64 || cfg.Sink != "autumn" || cfg.PostRate != 500 || cfg.ReadRate != 20 || a.URL != "https://api.useautumn.com" || a.FeatureID != "credits" ||
		a.Env != "" || a.InstallationID != "default" || cfg.Serve.GRPCListen != ":9103" || cfg.Serve.HTTPListen != ":8103" {
		t.Errorf("LoadConfig = %+v, want the documented defaults", cfg)
	}
	if shown := fmt.Sprintf("%+v", cfg); strings.Contains(shown, apiKey) {
		t.Errorf("the configuration shows the key: %s", shown)
	}
}

func TestLoadConfigReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	_, err := LoadConfig(settings(map[string]string{
		"BILLINGSVC_TARGET": "", "AUTUMN_API_KEY": "am_pk_test", "AUTUMN_API_URL": "api.useautumn.com", "AUTUMN_ENV": "production",
		"INSTALLATION_ID": "a b", "AUTUMN_FEATURE_ID": "ü", "OUTBOX_INTERVAL": "0s", "OUTBOX_CONCURRENCY": "501",
		"AUTUMN_DEDUPE": "hope", "BILLING_SINK": "paper", "AUTUMN_WEBHOOK_SECRET": "whsec_short", "STRIPE_API_URL": "stripe", "OUTBOX_RATE": "2000",
	}))
	for _, name := range []string{
		"BILLINGSVC_TARGET", "AUTUMN_API_KEY", "AUTUMN_API_URL", "AUTUMN_ENV", "INSTALLATION_ID",
		"AUTUMN_FEATURE_ID", "OUTBOX_INTERVAL", "OUTBOX_CONCURRENCY", "AUTUMN_DEDUPE", "BILLING_SINK", "AUTUMN_WEBHOOK_SECRET",
		"STRIPE_API_URL", "OUTBOX_RATE",
	} {
		if err == nil || !strings.Contains(err.Error(), name+":") {
			t.Errorf("LoadConfig = %v, want a fault of %s", err, name)
		}
	}
}

// start runs the service between a book and a server that plays Autumn.
func start(t *testing.T, b *book, sink http.Handler, change ...func(*Config)) outboxsvcv1.OutboxServiceClient {
	t.Helper()
	billing := grpc.NewServer()
	billingsvcv1.RegisterBillingServiceServer(billing, b)
	lis := listen(t)
	go billing.Serve(lis) //nolint:errcheck // it ends with Stop
	t.Cleanup(billing.Stop)
	srv := httptest.NewServer(sink)
	t.Cleanup(srv.Close)

	free := [2]string{}
	for i := range free {
		addr, err := port.Free("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free[i] = addr
	}
	cfg, err := LoadConfig(settings(map[string]string{
		"BILLINGSVC_TARGET": lis.Addr().String(), "AUTUMN_API_URL": srv.URL, "INSTALLATION_ID": "test",
		"OUTBOX_INTERVAL": "1h", "OUTBOX_RECONCILE_INTERVAL": "1h", "LOG_LEVEL": "error", "OUTBOXSVC_GRPC_LISTEN": free[0], "OUTBOXSVC_HTTP_LISTEN": free[1],
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&cfg)
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
	conn, err := serve.Caller{Token: secret.New(token)}.Dial(free[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	api := outboxsvcv1.NewOutboxServiceClient(conn)
	if _, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return api
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func deliver(t *testing.T, api outboxsvcv1.OutboxServiceClient) {
	t.Helper()
	if _, err := api.DeliverNow(t.Context(), &outboxsvcv1.DeliverNowRequest{}); err != nil {
		t.Fatalf("DeliverNow: %v", err)
	}
}

func TestServiceCreatesCustomersAndPosts(t *testing.T) {
	t.Parallel()
	sim := autumn.New(autumn.Options{SecretKey: apiKey, DefaultGrant: 100})
	b := &book{}
	b.add("a1", "acme", 1, 31_500_010)
	b.add("a2", "acme", 2, 10)
	b.add("z1", "zeta", 1, 1_000_000_000_000) // far more than the grant
	api := start(t, b, sim)
	deliver(t, api)
	for id, attempts := range map[string]int32{"a1": 1, "a2": 1, "z1": 1} {
		if c := b.get(id); c.GetState() != billingsvcv1.ChargeState_CHARGE_STATE_POSTED || c.GetProof() != "deductions" || c.GetAttempts() != attempts {
			t.Errorf("charge %s = %v, want it posted at attempt %d", id, c, attempts)
		}
	}
	key := "llm-proxy:default:test:batch:a1"
	if got := sim.AppliedByKey()[key]; got.Credits.String() != "3.150001" || got.Calls != 1 {
		t.Errorf("the simulator applied %+v under %s, want 3.150001 once", got, key)
	}
	if got := sim.Applied()["acme"].Credits.String(); got != "3.150002" {
		t.Errorf("the simulator took %s from acme, want 3.150002", got)
	}
	stats, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{})
	if err != nil || stats.GetApplied() != 3 || stats.GetReconciled() != 4 || !stats.GetSinkConfigured() || stats.GetLastPassAt() == nil {
		t.Errorf("GetStats = %v, %v, want 3 applied, and each team read before and after it became a customer", stats, err)
	}
	bal, err := api.GetSinkBalance(t.Context(), &outboxsvcv1.GetSinkBalanceRequest{TeamId: "acme"})
	if err != nil || bal.GetRemainingCredits() != "96.849998" || bal.GetUsedCredits() != "3.150002" || bal.GetGrantedCredits() != "100" {
		t.Errorf("GetSinkBalance = %v, %v", bal, err)
	}
	if _, err := api.GetSinkBalance(t.Context(), &outboxsvcv1.GetSinkBalanceRequest{TeamId: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("GetSinkBalance of a stranger = %v, want NOT_FOUND", err)
	}
}

// Whatever goes wrong at Autumn, each charge is applied once and posted.
func TestEachChargeIsAppliedOnceThroughAllFaults(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			sim := autumn.New(autumn.Options{SecretKey: apiKey, DefaultGrant: 10})
			var rules []autumn.Fault
			for i, name := range []string{
				autumn.FaultDropBeforeApply, autumn.FaultDropAfterApply, autumn.FaultClaimThenDie, autumn.FaultError500AfterApply,
				autumn.FaultError503, autumn.FaultRateLimited, autumn.FaultSlowApply, autumn.FaultAccepted202Lost,
				autumn.FaultHTML502, autumn.FaultTruncatedBody, autumn.FaultNoBalance,
			} {
				rules = append(rules, autumn.Fault{Fault: name, Probability: 0.025, Seed: seed*100 + uint64(i), DelayMS: 150, RetryAfterS: 1})
			}
			if err := sim.SetFaults(rules...); err != nil {
				t.Fatal(err)
			}
			b, rnd, want := &book{}, rand.New(rand.NewPCG(seed, 0)), map[string]money.NanoUSD{}
			for team := range 6 {
				for seq := range int64(8) {
					amount := money.NanoUSD(1+rnd.Int64N(1e9)) * 10
					id := fmt.Sprintf("team%d-%d", team, seq+1)
					b.add(id, fmt.Sprint("team", team), seq+1, int64(amount))
					want[id] = amount
				}
			}
			api := start(t, b, sim, func(cfg *Config) { cfg.Autumn.Timeout = 100 * time.Millisecond })
			for !b.settled() && t.Context().Err() == nil {
				// A pass may stop early, when the sink is left alone.
				_, _ = api.DeliverNow(t.Context(), &outboxsvcv1.DeliverNowRequest{})
			}
			applied := sim.AppliedByKey()
			for id, amount := range want {
				if c := b.get(id); c.GetState() != billingsvcv1.ChargeState_CHARGE_STATE_POSTED || c.GetProof() == "" {
					t.Errorf("charge %s = %v, want it posted with a proof", id, c)
				}
				if got := applied["llm-proxy:default:test:batch:"+id]; got.Calls != 1 || got.Credits.String() != amount.Credits() {
					t.Errorf("charge %s was applied %d times, %s credits, want once, %s", id, got.Calls, got.Credits, amount.Credits())
				}
			}
		})
	}
}

func TestAPartIsReportedAsAShortfall(t *testing.T) {
	t.Parallel()
	sim := autumn.New(autumn.Options{SecretKey: apiKey, DefaultGrant: 10})
	if err := sim.SetFaults(autumn.Fault{Path: "/v1/track", Fault: autumn.FaultPartial, Nth: 1}); err != nil {
		t.Fatal(err)
	}
	b := &book{}
	b.add("a1", "acme", 1, 40_000_000)
	deliver(t, start(t, b, sim))
	if c := b.get("a1"); c.GetState() != billingsvcv1.ChargeState_CHARGE_STATE_SHORT || c.GetShortfallNanoUsd() != 20_000_000 {
		t.Errorf("charge = %v, want half of it short", c)
	}
}

func TestDeadChargesAreListedAndRequeued(t *testing.T) {
	t.Parallel()
	sim := autumn.New(autumn.Options{SecretKey: apiKey, DefaultGrant: 10, FeatureID: "tokens"})
	b := &book{}
	b.add("a1", "acme", 1, 40_000_000)
	api := start(t, b, sim) // its feature is credits, which the simulator does not have
	deliver(t, api)
	dead, err := api.ListDeadCharges(t.Context(), &outboxsvcv1.ListDeadChargesRequest{})
	if err != nil || len(dead.GetDeadCharges()) != 1 || !strings.Contains(dead.GetDeadCharges()[0].GetReason(), "feature_not_found") ||
		dead.GetDeadCharges()[0].GetAmountNanoUsd() != 40_000_000 {
		t.Errorf("ListDeadCharges = %v, %v, want a1 with its reason", dead, err)
	}
	again, err := api.RequeueCharges(t.Context(), &outboxsvcv1.RequeueChargesRequest{ChargeIds: []string{"a1", "unknown"}})
	if err != nil || len(again.GetChargeIds()) != 1 {
		t.Errorf("RequeueCharges = %v, %v, want a1", again, err)
	}
	if _, err := api.ListDeadCharges(t.Context(), &outboxsvcv1.ListDeadChargesRequest{PageSize: 1001}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ListDeadCharges = %v, want billing's INVALID_ARGUMENT", err)
	}
}

func TestAChargeIsResolvedByHand(t *testing.T) {
	t.Parallel()
	b := &book{}
	api := start(t, b, autumn.New(autumn.Options{SecretKey: apiKey}))
	got, err := api.ResolveCharge(t.Context(), &outboxsvcv1.ResolveChargeRequest{
		ChargeId: "a1", Resolution: outboxsvcv1.Resolution_RESOLUTION_APPLIED, AppliedNanoUsd: 30_000_000, DryRun: true, Actor: "ops", Reason: "seen",
	})
	want := &outboxsvcv1.ResolveChargeResponse{ChargeId: "a1", TeamId: "acme", AmountNanoUsd: 40_000_000, State: "short", ShortfallNanoUsd: 10_000_000}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
		t.Errorf("ResolveCharge %v (-want +got):\n%s", err, diff)
	}
	_, err = api.ResolveCharge(t.Context(), &outboxsvcv1.ResolveChargeRequest{
		ChargeId: "a2", Resolution: outboxsvcv1.Resolution_RESOLUTION_NOT_APPLIED, NewKey: true, Reason: "not there",
	})
	if err != nil {
		t.Errorf("ResolveCharge = %v", err)
	}
	asked := []*billingsvcv1.ResolveChargeRequest{
		{ChargeId: "a1", Resolution: billingsvcv1.Resolution_RESOLUTION_APPLIED, AppliedNanoUsd: 30_000_000, DryRun: true, Actor: "ops", Reason: "seen"},
		{ChargeId: "a2", Resolution: billingsvcv1.Resolution_RESOLUTION_NOT_APPLIED, NewKey: true, Actor: "service", Reason: "not there"},
	}
	if diff := cmp.Diff(asked, b.resolved, protocmp.Transform()); diff != "" {
		t.Errorf("billing was asked (-want +got):\n%s", diff)
	}
	if _, err := api.ResolveCharge(t.Context(), &outboxsvcv1.ResolveChargeRequest{ChargeId: "a1", Reason: "seen"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ResolveCharge without a resolution = %v, want INVALID_ARGUMENT", err)
	}
}

func TestARefusedKeyIsReportedAndNothingElseIsTried(t *testing.T) {
	t.Parallel()
	b := &book{}
	b.add("a1", "acme", 1, 40_000_000)
	api := start(t, b, autumn.New(autumn.Options{SecretKey: "am_sk_another_key"}))
	_, err := api.DeliverNow(t.Context(), &outboxsvcv1.DeliverNowRequest{})
	if status.Code(err) != codes.FailedPrecondition || strings.Contains(err.Error(), apiKey) {
		t.Errorf("DeliverNow = %v, want FAILED_PRECONDITION without the key", err)
	}
	if c := b.get("a1"); c.GetState() != billingsvcv1.ChargeState_CHARGE_STATE_PENDING {
		t.Errorf("charge = %v, want it pending", c)
	}
	if stats, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{}); err != nil || stats.GetLastError() == "" {
		t.Errorf("GetStats = %v, %v, want the error", stats, err)
	}
}

func TestWithoutAKeyChargesWait(t *testing.T) {
	t.Parallel()
	b := &book{}
	b.add("a1", "acme", 1, 40_000_000)
	api := start(t, b, http.NotFoundHandler(), func(cfg *Config) { cfg.Autumn.Key = secret.String{} })
	deliver(t, api)
	stats, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{})
	if err != nil || stats.GetSinkConfigured() || b.get("a1").GetAttempts() != 0 {
		t.Errorf("GetStats = %v, %v with %d attempts, want no sink and none", stats, err, b.get("a1").GetAttempts())
	}
	if _, err := api.GetSinkBalance(t.Context(), &outboxsvcv1.GetSinkBalanceRequest{TeamId: "acme"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("GetSinkBalance = %v, want FAILED_PRECONDITION", err)
	}
}

func TestTeamsArePausedReconciledAndToppedUp(t *testing.T) {
	t.Parallel()
	sim := autumn.New(autumn.Options{SecretKey: apiKey, DefaultGrant: 10, Card: autumn.CardGood})
	sim.Grant("acme", autumn.Credits(5))
	b := &book{paused: map[string]bool{"acme": true}} // from before the start
	b.add("a1", "acme", 2, 40_000_000)
	api := start(t, b, sim, func(cfg *Config) { cfg.Autumn.TopUpPlan, cfg.ReconcileInterval = "top_up", 20*time.Millisecond })
	if _, err := api.PauseTeam(t.Context(), &outboxsvcv1.PauseTeamRequest{TeamId: "acme", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	deliver(t, api)
	if got := b.get("a1").GetAttempts(); got != 0 {
		t.Errorf("a paused team's charge had %d attempts", got)
	}
	if resp, err := api.ResumeTeam(t.Context(), &outboxsvcv1.ResumeTeamRequest{TeamId: "acme"}); err != nil || !resp.GetResumed() {
		t.Errorf("ResumeTeam = %v, %v", resp, err)
	}
	deliver(t, api)
	rec, err := api.ReconcileNow(t.Context(), &outboxsvcv1.ReconcileNowRequest{TeamIds: []string{"acme"}})
	if err != nil || len(rec.GetReconciliations()) != 1 || rec.GetReconciliations()[0].GetClass() != "none" {
		t.Errorf("ReconcileNow = %v, %v, want acme's", rec, err)
	}
	b.mu.Lock()
	report := b.reports[len(b.reports)-1]
	b.buy = &billingsvcv1.TopUp{TopUpId: "t1", TeamId: "acme", AmountNanoUsd: int64(500 * money.Credit), Attempts: 1}
	b.mu.Unlock()
	if report.GetBalanceCredits() != "11.0000000000" || report.GetUsageCredits() != "4" {
		t.Errorf("reported %v, want 11 left and 4 used", report)
	}
	for sim.Applied()["acme"].Calls == 1 && b.topUpsDone() == 0 && t.Context().Err() == nil { // the loop asks for it
		if _, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.topUps[0]; got.GetOutcome() != billingsvcv1.TopUpOutcome_TOP_UP_OUTCOME_SUCCEEDED || got.GetInvoiceId() == "" {
		t.Errorf("the top-up = %v, want it paid", got)
	}
}

// A purchase that takes long holds up no reading of another team's balance.
func TestASlowPurchaseDelaysNoReading(t *testing.T) {
	t.Parallel()
	sim := autumn.New(autumn.Options{SecretKey: apiKey, DefaultGrant: 10, Card: autumn.CardGood})
	sim.Grant("acme", autumn.Credits(5))
	sim.Grant("zeta", autumn.Credits(5))
	buying, read, gaveUp := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	b := &book{buy: &billingsvcv1.TopUp{TopUpId: "t1", TeamId: "acme", AmountNanoUsd: int64(500 * money.Credit), Attempts: 1}}
	start(t, b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/billing.attach":
			close(buying)
			select {
			case <-read:
			case <-time.After(2 * time.Second):
				gaveUp <- struct{}{}
			}
		case "GET /v1/customers/zeta":
			close(read)
		}
		sim.ServeHTTP(w, r)
	}), func(cfg *Config) { cfg.Autumn.TopUpPlan, cfg.ReconcileInterval = "top_up", 20*time.Millisecond })
	<-buying
	if _, err := b.NudgeTeam(t.Context(), &billingsvcv1.NudgeTeamRequest{TeamId: "zeta"}); err != nil {
		t.Fatal(err)
	}
	<-read
	select {
	case <-gaveUp:
		t.Error("zeta was read only when the purchase was over")
	default:
	}
}

// What comes by webhook only makes the team be read: nothing in it is believed.
func TestAWebhookMakesItsTeamBeRead(t *testing.T) {
	t.Parallel()
	const hook = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sim := autumn.New(autumn.Options{SecretKey: apiKey})
	b := &book{}
	var addr string
	api := start(t, b, sim, func(cfg *Config) {
		cfg.WebhookSecrets = []secret.String{secret.New(hook)}
		addr = cfg.Serve.HTTPListen
	})
	if err := sim.SendWebhooks("http://"+addr+"/v1/webhooks/autumn", hook); err != nil {
		t.Fatal(err)
	}
	sim.Grant("acme", autumn.Credits(5))
	thrice := func(list []autumn.Webhook) []autumn.Webhook { return append(append(list, list...), list...) }
	if statuses := sim.DeliverWebhooks(t.Context(), thrice); fmt.Sprint(statuses) != "[204 204 204]" {
		t.Fatalf("DeliverWebhooks = %v, want each taken", statuses)
	}
	for b.reported() == 0 && t.Context().Err() == nil {
		if _, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := api.GetStats(t.Context(), &outboxsvcv1.GetStatsRequest{})
	if err != nil || stats.GetWebhooks() != 3 || b.reports[0].GetTeamId() != "acme" || b.reports[0].GetBalanceCredits() != "5.0000000000" {
		t.Errorf("GetStats = %v, %v; reported %v, want acme's 5 credits", stats, err, b.reports[0])
	}
}
