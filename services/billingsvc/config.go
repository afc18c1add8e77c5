package billingsvc

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Config is what the service needs.
type Config struct {
	Serve          serve.Config
	DatabaseURL    secret.String
	ProxysvcTarget string        // host:port of SpendService, gRPC
	KeysvcTarget   string        // host:port of TeamService, gRPC; empty: gates stop nobody
	SyncInterval   time.Duration // between two syncs
	BatchRows      int           // of a log, in one transaction
	Rules          billing.Rules
	Reconcile      billing.ReconcileRules
	TopUps         bool
	// Now is the clock. Nil: the machine's. Proofs that need days set it.
	Now func() time.Time
}

// LoadConfig reads the configuration from the environment and reports every
// fault at once.
func LoadConfig(getenv func(string) string) (Config, error) {
	r := &env.Reader{Get: getenv}
	cfg := Config{
		Serve:          serve.LoadConfig(r, "billingsvc", "BILLINGSVC", serve.Defaults{GRPCListen: ":9102", HTTPListen: ":8102", Drain: 20 * time.Second}),
		DatabaseURL:    secret.New(r.Need("DATABASE_URL", "a Postgres URL such as postgres://user:password@host:5432/llmproxy")),
		ProxysvcTarget: r.Need("PROXYSVC_TARGET", "the gRPC host:port of proxysvc"),
		KeysvcTarget:   r.String("KEYSVC_TARGET", ""),
		SyncInterval:   r.Duration("BILLING_SYNC_INTERVAL", 30*time.Second),
		BatchRows:      r.Int("BILLING_BATCH_ROWS", 20_000, 1, 100_000),
		TopUps:         r.OneOf("BILLING_TOP_UP", "off", "off", "on") == "on",
	}
	var err error
	if cfg.Rules.Markup, err = billing.ParseMarkup(r.String("LLM_MARKUP", "3")); err != nil {
		r.Fault("LLM_MARKUP", "%v", err)
	}
	cfg.Rules.Policy = billing.Policy{
		TrialCredits: credits(r, "BILLING_TRIAL_CREDITS", "0"),
		GracePeriod:  r.Duration("BILLING_GRACE_PERIOD", 24*time.Hour),
		Overdraft:    credits(r, "BILLING_OVERDRAFT_CREDITS", "500"),
	}
	cfg.Rules.Limits = billing.Limits{
		Events:       r.Int("BILLING_CHARGE_EVENTS", 50_000, 1, 1_000_000),
		Amount:       credits(r, "BILLING_CHARGE_CREDITS", "10000"),
		ApproveAbove: credits(r, "BILLING_APPROVE_ABOVE_CREDITS", "1000000"),
	}
	cfg.Reconcile = billing.ReconcileRules{
		Every:         r.Duration("BILLING_RECONCILE_INTERVAL", 24*time.Hour),
		EveryShut:     r.Duration("BILLING_RECONCILE_SHUT_INTERVAL", time.Minute),
		EveryDoubt:    5 * time.Minute,
		AlarmAbove:    credits(r, "BILLING_DRIFT_CREDITS", "1"),
		AlarmPerMille: int64(r.Int("BILLING_DRIFT_PER_MILLE", 1, 0, 1000)),
	}
	return cfg, r.Err()
}

// credits reads an amount of credits, 0 or more, at most 100 million.
func credits(r *env.Reader, name, def string) money.NanoUSD {
	v := r.String(name, def)
	n, err := money.ParseDecimal(v, 7) // a credit is 10^7 nano-dollars
	if err != nil || n < 0 || money.NanoUSD(n) > 100_000_000*money.Credit {
		r.Fault(name, "%q is not an amount of credits from 0 to 100000000", v)
		return 0
	}
	return money.NanoUSD(n)
}
