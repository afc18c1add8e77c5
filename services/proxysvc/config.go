package proxysvc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/config"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/web"
)

// Config is everything that proxysvc needs; LoadConfig makes it.
type Config struct {
	Serve        serve.Config
	DatabaseURL  secret.String
	KeysvcTarget string
	AdminRoutes  bool
	// Source is where config.yaml and the real keys come from, Routing what they
	// said at the start, and Warnings what they said that does nothing here.
	Source   *config.Source
	Routing  proxy.Routing
	Warnings []string
	// ReloadInterval is how often they are looked at again.
	ReloadInterval time.Duration
	Web            web.Limits
	// CutExhausted ends the running streams of a team whose credits are used up;
	// otherwise they finish.
	CutExhausted bool
	// AlertWebhook is told of soft budgets that are spent; empty: nobody is.
	AlertWebhook string
	// Retention is how long rows stay in the ledger's table; 0: for ever.
	Retention time.Duration
	// JournalDir holds what must survive while Postgres is away.
	JournalDir string
	Prices     *pricing.Book
	Keys       keys.Settings
	Ledger     ledger.Settings
	Proxy      proxy.Settings
}

// LoadConfig reads the environment, config.yaml and the price list. Its error
// names everything that is wrong.
func LoadConfig(getenv func(string) string) (Config, error) {
	r := env.Reader{Get: getenv}
	cfg := Config{
		Serve: serve.LoadConfig(&r, "proxysvc", "PROXYSVC", serve.Defaults{
			GRPCListen: ":9100", HTTPListen: ":4000", Drain: 15 * time.Minute,
		}),
		DatabaseURL:  secret.New(r.Need("DATABASE_URL", "the URL of a Postgres database, postgres://USER:PASSWORD@HOST:PORT/DATABASE")),
		KeysvcTarget: r.Need("KEYSVC_TARGET", "keysvc's gRPC address, host:port"),
		AdminRoutes:  r.OneOf("PROXYSVC_ADMIN_ROUTES", "on", "on", "off") == "on",
		Keys: keys.Settings{
			SoftBudgets: r.OneOf("BUDGET_MODE", "hard", "hard", "soft") == "soft",
			Trust:       2 * r.Duration("KEYSVC_HEARTBEAT", 500*time.Millisecond),
			Outage:      r.Duration("KEY_OUTAGE_WINDOW", time.Minute),
			Timeout:     2 * time.Second,
			Retry:       100 * time.Millisecond,
			Recheck:     250 * time.Millisecond,
		},
		Ledger: ledger.Settings{
			Instance:     instance(),
			Heartbeat:    r.Duration("PROXYSVC_LOG_HEARTBEAT", time.Second),
			Silence:      r.Duration("PROXYSVC_LOG_SILENCE", 10*time.Second),
			Retry:        50 * time.Millisecond,
			AdmitTimeout: 5 * time.Second,

			Company: 25 * time.Millisecond,
			Gather:  2 * time.Millisecond,

			BudgetSlice:     r.Duration("PROXYSVC_BUDGET_SLICE", time.Minute),
			AbandonedHold:   r.Duration("PROXYSVC_ABANDONED_HOLD", 10*time.Minute),
			OutageAllowance: allowance(&r),
			OutageWindow:    outageWindow(&r),
		},
		Proxy: proxy.Settings{
			IdleTimeout:      r.Duration("PROXYSVC_IDLE_TIMEOUT", 10*time.Minute),
			ProgressInterval: r.Duration("PROXYSVC_PROGRESS_INTERVAL", 2*time.Second),
			SettleTimeout:    r.Duration("PROXYSVC_SETTLE_TIMEOUT", 30*time.Second),

			ChargeDearest:        r.OneOf("UNPRICED_MODELS", "refuse", "refuse", "dearest") == "dearest",
			BudgetExceededStatus: budgetStatus(&r),
		},
		CutExhausted:   r.OneOf("EXHAUSTED_STREAMS", "finish", "finish", "cut") == "cut",
		AlertWebhook:   r.String("ALERT_WEBHOOK_URL", ""),
		Retention:      time.Duration(r.Int("SPEND_RETENTION_DAYS", 0, 0, 36500)) * 24 * time.Hour,
		JournalDir:     r.String("PROXYSVC_JOURNAL_DIR", filepath.Join(os.TempDir(), "llmproxy-journal")),
		ReloadInterval: r.Duration("PROXYSVC_RELOAD_INTERVAL", 5*time.Second),
		Web: web.Limits{
			BodyMemory:    int64(r.Int("PROXYSVC_BODY_MEMORY_MB", 1024, 64, 1<<20)) << 20,
			BodyTime:      r.Duration("PROXYSVC_BODY_TIMEOUT", 5*time.Minute),
			BodyIdle:      30 * time.Second,
			ClientTimeout: r.Duration("PROXYSVC_CLIENT_TIMEOUT", 10*time.Minute),
		},
	}
	cfg.Web.Proxies = cfg.Serve.TrustedProxies
	if cfg.Retention > 0 && cfg.Retention < shortestRetention {
		r.Fault("SPEND_RETENTION_DAYS", "must be 0 (for ever) or at least 35: billing and budgets of a month need them")
	}
	if cfg.Ledger.Silence < 3*cfg.Ledger.Heartbeat {
		r.Fault("PROXYSVC_LOG_SILENCE", "must be at least three times PROXYSVC_LOG_HEARTBEAT, or living replicas are taken for dead")
	}
	var err error
	if cfg.Prices, err = loadPrices(fileOr(&r, "LLM_PROXY_PRICES", nil)); err != nil {
		r.Fault("LLM_PROXY_PRICES", "%v", err)
	}
	cfg.Source = &config.Source{
		Path:    r.String("LLM_PROXY_CONFIG", ""),
		Secrets: config.Secrets{Getenv: getenv, Dir: r.String("LLM_PROXY_SECRETS_DIR", "")},
		Book:    cfg.Prices,
	}
	if cfg.Prices != nil {
		c, err := cfg.Source.Load()
		if err != nil {
			r.Fault("LLM_PROXY_CONFIG", "%v", err)
		}
		cfg.Routing, cfg.Warnings = c.Routing, c.Warnings
	}
	return cfg, r.Err()
}

// allowance is what requests may cost that are let in while Postgres is away.
func allowance(r *env.Reader) money.NanoUSD {
	n, err := money.ParseUSD(r.String("OUTAGE_ALLOWANCE_USD", "0"))
	if err != nil || n < 0 {
		r.Fault("OUTAGE_ALLOWANCE_USD", "must be an amount in USD, such as 25 or 0.50")
	}
	return n
}

const shortestRetention = 35 * 24 * time.Hour

// outageWindow is for how long they are let in.
func outageWindow(r *env.Reader) time.Duration {
	if r.String("OUTAGE_WINDOW", "0") == "0" {
		return 0
	}
	return r.Duration("OUTAGE_WINDOW", 0)
}

// budgetStatus is the status of a spent budget. Clients hold 402 for final; 429 and
// 400 are what LiteLLM's releases have answered.
func budgetStatus(r *env.Reader) int {
	n, _ := strconv.Atoi(r.OneOf("BUDGET_EXCEEDED_STATUS", "402", "402", "400", "403", "429")) // one of these
	return n
}

func loadPrices(text []byte) (*pricing.Book, error) {
	if text == nil {
		return pricing.Default()
	}
	return pricing.Load(text)
}

// CheckPrices checks a price list and counts its models.
func CheckPrices(text []byte) (int, error) {
	book, err := pricing.Load(text)
	if err != nil {
		return 0, err
	}
	return len(book.List()), nil
}

// fileOr reads the file that a variable names; def when it names none.
func fileOr(r *env.Reader, name string, def []byte) []byte {
	path := r.String(name, "")
	if path == "" {
		return def
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator's own file
	if err != nil {
		r.Fault(name, "%v", err)
		return def
	}
	return text
}

func instance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d since %s", host, os.Getpid(), time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
}
