package dev

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	llmproxy "github.com/proliferate-ai/llm-proxy/sdk/go"
)

// What the SDKs are told. The gateway's credential may issue and no more; the
// proxy and the SDKs are told the same address for sandboxes, which nobody calls.
const (
	gatewayToken = "gateway-canary-0123456789"
	financeToken = "finance-canary-0123456789"
	sandboxURL   = "https://llm.example.com/proxy"
)

// TestTheSDKs plays a session's life with both SDKs against the processes: its
// team, its key, a request, the ledger's row, its end.
func TestTheSDKs(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.env["LLM_PROXY_PUBLIC_URL"] = sandboxURL
	s.env["LLM_PROXY_ADMIN_TOKENS"] = "gateway:issue:" + gatewayToken + ",finance:read:" + financeToken
	s.start("keysvc")
	at := "http://" + s.start("proxysvc").http
	t.Cleanup(func() {
		for _, p := range s.processes {
			if strings.Contains(p.log.String(), gatewayToken) || strings.Contains(p.log.String(), financeToken) {
				t.Errorf("%s has an admin token in its log", p.name)
			}
		}
	})
	t.Run("Go", func(t *testing.T) { t.Parallel(); playGoSDK(t, s, at) })
	t.Run("TypeScript", func(t *testing.T) { t.Parallel(); playTypeScriptSDK(t, s, at) })
}

// connectGoSDK makes a client as a gateway does, from its environment.
func connectGoSDK(t *testing.T, env map[string]string) *llmproxy.Client {
	t.Helper()
	cfg, err := llmproxy.ConfigFromEnv(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	c, err := llmproxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func playGoSDK(t *testing.T, s *suite, at string) {
	t.Helper()
	const org, session = "acme from Go", "session 1?#%2F: größer"
	gateway := connectGoSDK(t, map[string]string{"LLM_PROXY_URL": at + "/v1", "LLM_PROXY_MASTER_KEY": gatewayToken, "LLM_PROXY_KEY_DURATION": "2h"})
	for _, want := range []bool{true, false} {
		team, created, err := gateway.EnsureTeamExists(t.Context(), org, llmproxy.TeamOptions{Alias: "Acme"})
		if err != nil || created != want || team.TeamID != org || team.TeamAlias != "Acme" || team.Status != "TEAM_STATUS_ACTIVE" {
			t.Fatalf("%+v, made: %v, %v", team, created, err)
		}
	}
	ask := llmproxy.SessionRequest{
		SessionID: session, OrgID: org, Limits: llmproxy.Limits{MaxBudgetNanoUSD: proto.Int64(1_000_000_001)},
		Metadata: map[string]any{"repo": "größer"}, IdempotencyKey: "start",
	}
	first, key := issueByGoSDK(t, gateway, ask), issueByGoSDK(t, gateway, ask)
	if key.Info.KeyID != first.Info.KeyID || key.Key == first.Key {
		t.Fatalf("the repeat has the key %s, want %s with a fresh secret", key.Info.KeyID, first.Info.KeyID)
	}
	checkSessionKey(t, key, org, session)
	told := connectGoSDK(t, map[string]string{"LLM_PROXY_URL": at, "LLM_PROXY_PUBLIC_URL": sandboxURL + "/v1/"})
	if diff := cmp.Diff(told.OpencodeConfig(key.Key, ""), key.OpencodeConfig); diff != "" {
		t.Errorf("OpenCode's configuration (-the SDK's +the proxy's):\n%s", diff)
	}
	if status := post(t, strings.TrimPrefix(at, "http://"), key.Key, hello).StatusCode; status != http.StatusOK {
		t.Fatalf("a request with the key: %d", status)
	}
	cost := checkRow(t, connectGoSDK(t, map[string]string{"LLM_PROXY_URL": at, "LLM_PROXY_MASTER_KEY": financeToken}), session)
	requests := 1 + revokeByGoSDK(t, gateway, at, key)
	last := issueByGoSDK(t, gateway, llmproxy.SessionRequest{SessionID: session, OrgID: org})
	end, err := gateway.EndSession(t.Context(), session)
	// A request that was stopped while it was admitted counts too, at no cost.
	want := llmproxy.SessionCost{Keys: 2, Requests: max(requests, end.Requests), CostNanoUSD: requests * cost}
	if err != nil || end != want {
		t.Errorf("the session ended with %+v, want %+v; %v", end, want, err)
	}
	checkGoSDKErrors(t, gateway, at)
	assertNoLeak(t, s, ofAnthropic(s.anthropic), []string{first.Key, key.Key, last.Key})
}

func issueByGoSDK(t *testing.T, gateway *llmproxy.Client, ask llmproxy.SessionRequest) llmproxy.SessionKey {
	t.Helper()
	key, err := gateway.GenerateSessionAPIKey(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// revokeByGoSDK ends a key, waits until the proxy refuses it, and returns how many
// requests it answered meanwhile.
func revokeByGoSDK(t *testing.T, gateway *llmproxy.Client, at string, key llmproxy.SessionKey) int64 {
	t.Helper()
	revoked, err := gateway.RevokeVirtualKey(t.Context(), llmproxy.Target{Key: key.Key})
	if err != nil || len(revoked) != 1 || revoked[0].KeyID != key.Info.KeyID || revoked[0].RevokedAt == nil {
		t.Errorf("revoked %+v, %v", revoked, err)
	}
	answered := int64(0)
	poll(t, func() bool {
		status := post(t, strings.TrimPrefix(at, "http://"), key.Key, hello).StatusCode
		if status == http.StatusOK {
			answered++
		}
		return status == http.StatusUnauthorized
	})
	return answered
}

func checkSessionKey(t *testing.T, key llmproxy.SessionKey, org, session string) {
	t.Helper()
	env := map[string]string{
		"ANTHROPIC_API_KEY": key.Key, "LLM_PROXY_API_KEY": key.Key, "ANTHROPIC_BASE_URL": sandboxURL, "LLM_PROXY_URL": sandboxURL,
	}
	if diff := cmp.Diff(env, key.Env); diff != "" || !key.Proxied {
		t.Errorf("proxied: %v, environment (-want +got):\n%s", key.Proxied, diff)
	}
	k := key.Info
	if k.TeamID != org || k.UserID != session || k.Token != llmproxy.TokenOf(key.Key) || *k.Limits.MaxBudgetNanoUSD != 1_000_000_001 || k.Metadata["repo"] != "größer" {
		t.Errorf("the key is %+v", k)
	}
	if key.ExpiresAt == nil || k.Duration != "2h" || key.ExpiresAt.Before(k.CreatedAt.Add(2*time.Hour)) {
		t.Errorf("it was made at %v for %s and ends at %v", k.CreatedAt, k.Duration, key.ExpiresAt)
	}
}

const hello = `{"model":"claude-haiku-4-5","max_tokens":50,"messages":[{"role":"user","content":"Hi"}]}`

// checkRow looks the session's one request up and returns its cost.
func checkRow(t *testing.T, finance *llmproxy.Client, session string) int64 {
	t.Helper()
	page, err := finance.ListSpendLogs(t.Context(), llmproxy.SpendFilter{
		SessionID: session, EndedAfter: time.Unix(0, 0), EndedBefore: time.Now().Add(time.Hour), PageSize: 10,
	})
	if err != nil || len(page.Rows) != 1 || page.NextPageToken != "" {
		t.Fatalf("%+v, %v", page, err)
	}
	row := page.Rows[0]
	byHand := row.Usage.InputTokens*1000 + row.Usage.OutputTokens*5000 // of haiku, in nano-dollars a token
	if row.Status != "SPEND_STATUS_COMPLETED" || row.UserID != session || row.Usage.OutputTokens == 0 || row.CostNanoUSD != byHand || row.HTTPStatus != 200 {
		t.Errorf("the row is %+v; by hand it costs %d", row, byHand)
	}
	return row.CostNanoUSD
}

func checkGoSDKErrors(t *testing.T, gateway *llmproxy.Client, at string) {
	t.Helper()
	_, err := gateway.RevokeVirtualKey(t.Context(), llmproxy.Target{SessionID: "nobody's"})
	if e, ok := errors.AsType[*llmproxy.Error](err); !ok || e.Status != http.StatusNotFound || e.Retryable {
		t.Errorf("revoking what was never there: %v", err)
	}
	_, err = gateway.ListSpendLogs(t.Context(), llmproxy.SpendFilter{})
	if e, ok := errors.AsType[*llmproxy.Error](err); !ok || e.Status != http.StatusForbidden {
		t.Errorf("the gateway's token lists spend: %v", err)
	}
	wrong := connectGoSDK(t, map[string]string{"LLM_PROXY_URL": at, "LLM_PROXY_MASTER_KEY": wrongKey})
	_, err = wrong.EndSession(t.Context(), "s")
	if e, ok := errors.AsType[*llmproxy.Error](err); !ok || e.Status != http.StatusUnauthorized || strings.Contains(err.Error(), wrongKey) {
		t.Errorf("a wrong credential: %v", err)
	}
}

// playTypeScriptSDK runs the same with Node and compares what it saw with the
// ledger.
func playTypeScriptSDK(t *testing.T, s *suite, at string) {
	t.Helper()
	const org, session = "acme from TypeScript", "session 2?#%2F: größer"
	cmd := exec.CommandContext(t.Context(), typeScriptSDK(t), "test/processes.mjs")
	cmd.Dir = sdkFolder
	cmd.Env = []string{
		"LLM_PROXY_URL=" + at + "/v1", "LLM_PROXY_MASTER_KEY=" + gatewayToken, "LLM_PROXY_KEY_DURATION=2h", "FINANCE_TOKEN=" + financeToken,
		"WRONG_KEY=" + wrongKey, "SANDBOX_URL=" + sandboxURL, "SESSION=" + session, "ORG=" + org,
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("test/processes.mjs: %v\n%s", err, &stderr)
	}
	var saw struct {
		Keys     []string
		Requests int
		Cost     int64 `json:",string"`
	}
	if err := json.Unmarshal(out, &saw); err != nil || len(saw.Keys) != 3 {
		t.Fatalf("it printed %d keys: %v", len(saw.Keys), err)
	}
	finance := connectGoSDK(t, map[string]string{"LLM_PROXY_URL": at, "LLM_PROXY_MASTER_KEY": financeToken})
	page, err := finance.ListSpendLogs(t.Context(), llmproxy.SpendFilter{SessionID: session, OrgID: org})
	if err != nil {
		t.Fatal(err)
	}
	var cost int64
	for _, row := range page.Rows {
		cost += row.CostNanoUSD
	}
	if len(page.Rows) < saw.Requests || cost != saw.Cost || cost == 0 {
		t.Errorf("it saw %d requests for %d, the ledger has %d for %d", saw.Requests, saw.Cost, len(page.Rows), cost)
	}
	assertNoLeak(t, s, ofAnthropic(s.anthropic), saw.Keys)
}

// TestTheTypeScriptSDKAlone compiles it and runs its own tests, which need no
// process.
func TestTheTypeScriptSDKAlone(t *testing.T) {
	t.Parallel()
	program := typeScriptSDK(t)
	files, err := filepath.Glob(filepath.Join(sdkFolder, "dist", "*.test.js"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), program, append([]string{"--test", "--test-reporter=tap"}, files...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("node --test: %v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^# pass [1-9]\d+$`).Match(out) || !regexp.MustCompile(`(?m)^# skipped 0$`).Match(out) {
		t.Errorf("too few tests ran:\n%s", out)
	}
}

// TestTheSDKsNameFieldsAsTheContractsDo compares what the SDKs read from answers
// with the contracts: a field with another name would stay empty and tell nobody.
func TestTheSDKsNameFieldsAsTheContractsDo(t *testing.T) {
	t.Parallel()
	interfaces := typeScriptInterfaces(t)
	for _, tt := range []struct {
		message proto.Message
		goType  any
	}{
		{&keysv1.Key{}, llmproxy.Key{}},
		{&keysv1.Team{}, llmproxy.Team{}},
		{&keysv1.Limits{}, llmproxy.Limits{}},
		{&keysv1.BudgetLimit{}, llmproxy.BudgetLimit{}},
		{&proxyv1.Usage{}, llmproxy.Usage{}},
		{&proxyv1.SpendRow{}, llmproxy.SpendRow{}},
		{&proxyv1.ListSpendResponse{}, llmproxy.SpendPage{}},
		{&proxyv1.EndSessionResponse{}, llmproxy.SessionCost{}},
		{&keysv1.IssueSessionKeyResponse{}, nil},
		{&keysv1.RevokeKeysRequest{}, nil},
	} {
		known := map[string]bool{}
		descriptor := tt.message.ProtoReflect().Descriptor()
		for i := range descriptor.Fields().Len() {
			known[string(descriptor.Fields().Get(i).Name())] = true
		}
		name := string(descriptor.Name())
		if len(interfaces[name]) != len(known) {
			t.Errorf("TypeScript's %s has %d fields, want %d", name, len(interfaces[name]), len(known))
		}
		if n := len(jsonNames(tt.goType)); settable[name] && n != len(known) {
			t.Errorf("Go's %s has %d fields, want %d", name, n, len(known))
		}
		for _, field := range append(interfaces[name], jsonNames(tt.goType)...) {
			if !known[field] {
				t.Errorf("%s has no field %s", descriptor.FullName(), field)
			}
		}
	}
}

// TestTheGoSDKsLimitsAreTheContracts sends every limit there and back.
func TestTheGoSDKsLimitsAreTheContracts(t *testing.T) {
	t.Parallel()
	until := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	budget := llmproxy.BudgetLimit{MaxBudgetNanoUSD: 1 << 60, BudgetDuration: "1mo"}
	want := llmproxy.Limits{
		MaxBudgetNanoUSD: new(int64(1)), RPMLimit: new(int64(2)), TPMLimit: new(int64(3)), MaxParallelRequests: new(int64(4)), BudgetDuration: "30d",
		BudgetLimits: []llmproxy.BudgetLimit{budget}, SoftBudgetNanoUSD: new(int64(5)),
		ModelMaxBudget: map[string]llmproxy.BudgetLimit{"m": budget},
		ModelRPMLimit:  map[string]llmproxy.Int64{"m": 6}, ModelTPMLimit: map[string]llmproxy.Int64{"m": 1 << 60},
		TempBudgetIncreaseNanoUSD: new(int64(7)), TempBudgetExpiresAt: &until, BudgetMode: llmproxy.BudgetModeSoft,
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var wire keysv1.Limits
	if err := protojson.Unmarshal(text, &wire); err != nil {
		t.Fatal(err)
	}
	if text, err = (protojson.MarshalOptions{UseProtoNames: true}).Marshal(&wire); err != nil {
		t.Fatal(err)
	}
	var got llmproxy.Limits
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %s", err, text)
	}
}

// settable are what callers fill in: a field that is missing cannot be asked for.
var settable = map[string]bool{"Limits": true, "BudgetLimit": true}

func jsonNames(of any) []string {
	if of == nil {
		return nil
	}
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeOf(of)) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// typeScriptInterfaces are the fields of each interface in src/generated.ts.
func typeScriptInterfaces(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	name := ""
	for line := range strings.Lines(read(t, "sdk/typescript/src/generated.ts")) {
		if m := regexp.MustCompile(`^export interface (\w+)`).FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if m := regexp.MustCompile(`^  (\w+)\?: `).FindStringSubmatch(line); m != nil {
			found[name] = append(found[name], m[1])
		}
	}
	return found
}
