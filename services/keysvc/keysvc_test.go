package keysvc_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/keysvc"
)

// needed is the least that the service can be told.
func needed() map[string]string {
	return map[string]string{
		"DATABASE_URL":            "postgres://u:p@127.0.0.1:5432/d",
		"LLM_PROXY_MASTER_KEY":    "sk-master-0123456789",
		"LLM_PROXY_SERVICE_TOKEN": "service-0123456789",
	}
}

func load(t *testing.T, vars map[string]string) keysvc.Config {
	t.Helper()
	cfg, err := keysvc.LoadConfig(func(name string) string { return vars[name] })
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestConfigNeedsLittle(t *testing.T) {
	t.Parallel()
	cfg := load(t, needed())
	if cfg.PublicURL != "http://127.0.0.1:4000" || cfg.Policy.SessionDuration != "30d" || cfg.Serve.GRPCListen != ":9101" ||
		cfg.Serve.HTTPListen != ":8101" || cfg.PollInterval != 250*time.Millisecond || cfg.Heartbeat != 500*time.Millisecond {
		t.Errorf("config = %+v", cfg)
	}
}

func TestSessionKeysOutliveSandboxes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, sandbox, duration, want string }{
		{"short sandboxes", "3600", "", "30d"},
		{"sandboxes of 31 days", "2678400", "", "2678400s"},
		{"a duration that was given", "2678400", "1mo", "1mo"},
	} {
		vars := needed()
		vars["SANDBOX_TIMEOUT_SECONDS"], vars["LLM_PROXY_KEY_DURATION"] = tt.sandbox, tt.duration
		if got := load(t, vars).Policy.SessionDuration; got != tt.want {
			t.Errorf("%s: key duration = %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestConfigReportsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"LLM_PROXY_PUBLIC_URL":    "https://llm.example.com/v1/",
		"LLM_PROXY_KEY_DURATION":  "soon",
		"SANDBOX_TIMEOUT_SECONDS": "-1",
		"KEYSVC_GRPC_LISTEN":      "9101",
		"KEYSVC_HTTP_LISTEN":      "x",
		"KEYSVC_DRAIN":            "20",
		"KEYSVC_POLL_INTERVAL":    "2s",
		"KEYSVC_HEARTBEAT":        "1s",
		"LOG_LEVEL":               "loud",

		"LLM_PROXY_ADMIN_TOKENS":       "gateway:issue:short",
		"LLM_PROXY_AUTH_FAILURES":      "-1",
		"KEYSVC_DEFAULT_KEY_PARAMS":    `{"max_budget": "much"}`,
		"KEYSVC_UPPERBOUND_KEY_PARAMS": `{"max_budgets": 1}`,
		"KEYSVC_EXPIRY_INTERVAL":       "0s",
		"KEYSVC_EVENT_RETENTION":       "7d",
		"KEYSVC_AUDIT_RETENTION":       "x",
	}
	_, err := keysvc.LoadConfig(func(name string) string { return vars[name] })
	if err == nil {
		t.Fatal("LoadConfig took it")
	}
	got := []string{}
	for line := range strings.Lines(err.Error()) {
		name, _, _ := strings.Cut(line, ":")
		got = append(got, name)
	}
	slices.Sort(got)
	want := []string{
		"DATABASE_URL", "KEYSVC_AUDIT_RETENTION", "KEYSVC_DEFAULT_KEY_PARAMS", "KEYSVC_DRAIN", "KEYSVC_EVENT_RETENTION",
		"KEYSVC_EXPIRY_INTERVAL", "KEYSVC_GRPC_LISTEN", "KEYSVC_HTTP_LISTEN", "KEYSVC_POLL_INTERVAL",
		"KEYSVC_UPPERBOUND_KEY_PARAMS", "LLM_PROXY_ADMIN_TOKENS", "LLM_PROXY_AUTH_FAILURES",
		"LLM_PROXY_KEY_DURATION", "LLM_PROXY_MASTER_KEY", "LLM_PROXY_PUBLIC_URL", "LLM_PROXY_SERVICE_TOKEN",
		"LOG_LEVEL", "SANDBOX_TIMEOUT_SECONDS",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables named in\n%v\n(-want +got):\n%s", err, diff)
	}
}

func TestThePolicyIsReadInLiteLLMsWords(t *testing.T) {
	t.Parallel()
	vars := needed()
	vars["KEYSVC_DEFAULT_KEY_PARAMS"] = `{"max_budget": 0.1, "models": ["m"], "tags": ["t"], "budget_duration": "1d"}`
	vars["KEYSVC_UPPERBOUND_KEY_PARAMS"] = `{"max_budget": 2.5e1, "rpm_limit": 60, "duration": "7d"}`
	p := load(t, vars).Policy
	if got := *p.Defaults.MaxBudgetNanoUSD; got != 100_000_000 {
		t.Errorf("default budget = %s, want 0.1", got)
	}
	if got := *p.Bounds.MaxBudgetNanoUSD; got != 25_000_000_000 {
		t.Errorf("largest budget = %s, want 25", got)
	}
	if p.SessionDuration != "7d" || *p.Bounds.RPMLimit != 60 || p.Defaults.Models[0] != "m" || p.Defaults.Tags[0] != "t" || p.Defaults.BudgetDuration != "1d" {
		t.Errorf("policy = %+v", p)
	}
	for name, text := range map[string]string{
		"LLM_PROXY_KEY_DURATION":       "30d",
		"KEYSVC_DEFAULT_KEY_PARAMS":    `{"max_budget": 26}`,
		"KEYSVC_UPPERBOUND_KEY_PARAMS": `{"models": ["m"], "max_budget": 1}`,
	} {
		wrong := map[string]string{}
		maps.Copy(wrong, vars)
		wrong[name] = text
		if _, err := keysvc.LoadConfig(func(name string) string { return wrong[name] }); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v, want an error that names it", name, text, err)
		}
	}
}

func TestRunNamesAPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	vars := needed()
	vars["DATABASE_URL"] = pgtest.Empty(t)
	vars["KEYSVC_GRPC_LISTEN"], vars["KEYSVC_HTTP_LISTEN"] = "127.0.0.1:0", taken.Addr().String()
	err = keysvc.Run(t.Context(), load(t, vars))
	if err == nil || !strings.Contains(err.Error(), "keysvc wants "+taken.Addr().String()+" for HTTP") {
		t.Errorf("Run = %v, want an error that names %s", err, taken.Addr())
	}
}

func TestRunMigratesServesAndDrains(t *testing.T) {
	t.Parallel()
	vars := needed()
	vars["DATABASE_URL"] = pgtest.Empty(t)
	vars["KEYSVC_GRPC_LISTEN"], vars["KEYSVC_HTTP_LISTEN"] = "127.0.0.1:0", "127.0.0.1:0"
	cfg := load(t, vars)
	if err := keysvc.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- keysvc.Run(ctx, cfg) }()
	conn, err := pgx.Connect(t.Context(), vars["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for listening := false; !listening; { // the last thing that starts
		err := conn.QueryRow(t.Context(), `
			select exists (select from pg_stat_activity where datname = current_database() and query = 'listen keys_events')`).
			Scan(&listening)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("Run ended early: %v", err)
		default:
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil after a clean drain", err)
	}
}
