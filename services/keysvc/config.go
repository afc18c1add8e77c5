package keysvc

import (
	"net/url"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Config is what the service can be told.
type Config struct {
	Serve       serve.Config
	DatabaseURL secret.String
	// PublicURL is where sandboxes reach the proxy, without a slash or /v1 at
	// its end.
	PublicURL string
	// Policy is what callers get when they do not say, and at most.
	Policy key.Policy
	// PollInterval is how often the event table is read when no notification
	// arrives; Heartbeat is the longest time between two messages of a watch.
	PollInterval, Heartbeat time.Duration
	// ExpiryInterval is how often keys are looked for whose life is over.
	ExpiryInterval time.Duration
	// Retention is how long events and audit rows are kept.
	Retention key.Retention
}

// LoadConfig reads the environment and reports every fault at once.
func LoadConfig(getenv func(string) string) (Config, error) {
	r := &env.Reader{Get: getenv}
	cfg := Config{
		Serve: serve.LoadConfig(r, "keysvc", "KEYSVC", serve.Defaults{
			GRPCListen: ":9101", HTTPListen: ":8101", Drain: 20 * time.Second,
		}),
		DatabaseURL:  secret.New(r.Need("DATABASE_URL", "postgres://USER:PASSWORD@HOST:PORT/DATABASE")),
		PublicURL:    publicURL(r),
		Policy:       policy(r),
		PollInterval: r.Duration("KEYSVC_POLL_INTERVAL", 250*time.Millisecond),
		Heartbeat:    r.Duration("KEYSVC_HEARTBEAT", 500*time.Millisecond),

		ExpiryInterval: r.Duration("KEYSVC_EXPIRY_INTERVAL", 500*time.Millisecond),
		Retention: key.Retention{
			Events: r.Duration("KEYSVC_EVENT_RETENTION", 7*24*time.Hour),
			Audit:  r.Duration("KEYSVC_AUDIT_RETENTION", 400*24*time.Hour),
		},
	}
	if cfg.PollInterval > cfg.Heartbeat {
		r.Fault("KEYSVC_POLL_INTERVAL", "%s is longer than KEYSVC_HEARTBEAT, %s: each heartbeat needs a look into the event table",
			cfg.PollInterval, cfg.Heartbeat)
	}
	return cfg, r.Err()
}

func publicURL(r *env.Reader) string {
	const name = "LLM_PROXY_PUBLIC_URL"
	text := strings.TrimRight(r.String(name, "http://127.0.0.1:4000"), "/")
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		r.Fault(name, "%q is not a URL such as https://llm.example.com", text)
	case strings.HasSuffix(u.Path, "/v1"):
		r.Fault(name, "%q must not end in /v1; clients that want it get it added", text)
	}
	return text
}
