package proxysvc

import (
	"fmt"
	"os"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/config"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/keys"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Config is everything that proxysvc needs; LoadConfig makes it.
type Config struct {
	Serve        serve.Config
	DatabaseURL  secret.String
	KeysvcTarget string
	AdminRoutes  bool
	Deployments  []proxy.Deployment
	Prices       *pricing.Book
	Keys         keys.Settings
	Ledger       ledger.Settings
	Proxy        proxy.Settings
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
			Trust:   3 * r.Duration("KEYSVC_HEARTBEAT", 500*time.Millisecond),
			Outage:  r.Duration("KEY_OUTAGE_WINDOW", time.Minute),
			Timeout: 2 * time.Second,
			Retry:   100 * time.Millisecond,
		},
		Ledger: ledger.Settings{
			Instance:     instance(),
			Heartbeat:    r.Duration("PROXYSVC_LOG_HEARTBEAT", time.Second),
			Silence:      r.Duration("PROXYSVC_LOG_SILENCE", 10*time.Second),
			Retry:        50 * time.Millisecond,
			AdmitTimeout: 5 * time.Second,
		},
		Proxy: proxy.Settings{
			IdleTimeout:      r.Duration("PROXYSVC_IDLE_TIMEOUT", 10*time.Minute),
			ProgressInterval: r.Duration("PROXYSVC_PROGRESS_INTERVAL", 2*time.Second),
			SettleTimeout:    r.Duration("PROXYSVC_SETTLE_TIMEOUT", 30*time.Second),
		},
	}
	if cfg.Ledger.Silence < 3*cfg.Ledger.Heartbeat {
		r.Fault("PROXYSVC_LOG_SILENCE", "must be at least three times PROXYSVC_LOG_HEARTBEAT, or living replicas are taken for dead")
	}
	var err error
	text := fileOr(&r, "LLM_PROXY_CONFIG", config.Default)
	if cfg.Deployments, err = config.Load(text, getenv); err != nil {
		r.Fault("LLM_PROXY_CONFIG", "%v", err)
	}
	if cfg.Prices, err = loadPrices(fileOr(&r, "LLM_PROXY_PRICES", nil)); err != nil {
		r.Fault("LLM_PROXY_PRICES", "%v", err)
	}
	return cfg, r.Err()
}

func loadPrices(text []byte) (*pricing.Book, error) {
	if text == nil {
		return pricing.Default()
	}
	return pricing.Load(text)
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
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
