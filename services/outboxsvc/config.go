package outboxsvc

import (
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/autumn"
)

// Config is what the service needs.
type Config struct {
	Serve            serve.Config
	BillingsvcTarget string         // host:port of BillingService, gRPC
	Autumn           autumn.Options // no key: no sink, charges wait
	Interval         time.Duration  // between two passes
	Concurrency      int            // charges in flight at once
}

var (
	installationID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
	featureID      = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
)

// LoadConfig reads the configuration from the environment and reports every
// fault at once.
func LoadConfig(getenv func(string) string) (Config, error) {
	r := &env.Reader{Get: getenv}
	cfg := Config{
		Serve:            serve.LoadConfig(r, "outboxsvc", "OUTBOXSVC", serve.Defaults{GRPCListen: ":9103", HTTPListen: ":8103", Drain: 20 * time.Second}),
		BillingsvcTarget: r.Need("BILLINGSVC_TARGET", "the gRPC host:port of billingsvc"),
		Interval:         r.Duration("OUTBOX_INTERVAL", 60*time.Second),
		Concurrency:      r.Int("OUTBOX_CONCURRENCY", 16, 1, 100),
	}
	cfg.Autumn = autumn.Options{
		Key:            secret.New(r.String("AUTUMN_API_KEY", "")),
		URL:            r.String("AUTUMN_API_URL", "https://api.useautumn.com"),
		FeatureID:      r.String("AUTUMN_FEATURE_ID", "credits"),
		Env:            r.OneOf("AUTUMN_ENV", "", "sandbox", "live"),
		InstallationID: r.String("INSTALLATION_ID", "default"),
		Concurrency:    cfg.Concurrency,
	}
	if strings.HasPrefix(cfg.Autumn.Key.Reveal(), "am_pk_") {
		r.Fault("AUTUMN_API_KEY", "is a publishable key; a secret one, am_sk_…, is needed")
	}
	if u, err := url.Parse(cfg.Autumn.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		r.Fault("AUTUMN_API_URL", "is not a URL such as https://api.useautumn.com")
	}
	if !featureID.MatchString(cfg.Autumn.FeatureID) {
		r.Fault("AUTUMN_FEATURE_ID", "has other characters than letters, digits and . _ -, or is longer than 100")
	}
	if !installationID.MatchString(cfg.Autumn.InstallationID) {
		r.Fault("INSTALLATION_ID", "has other characters than letters, digits and . _ -, or is longer than 100")
	}
	return cfg, r.Err()
}
