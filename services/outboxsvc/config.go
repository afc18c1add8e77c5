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
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/stripe"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/webhook"
)

// Config is what the service needs.
type Config struct {
	Serve             serve.Config
	BillingsvcTarget  string // host:port of BillingService, gRPC
	KeysvcTarget      string // host:port of TeamService, gRPC; empty: customers are called by their id
	Sink              string // "autumn" or "stripe"
	Autumn            autumn.Options
	Stripe            stripe.Options
	WebhookSecrets    []secret.String // none: webhooks are not taken
	Interval          time.Duration   // between two passes
	ReconcileInterval time.Duration   // between two looks for teams to read and top-ups to ask for
	Concurrency       int             // charges in flight at once
	PostRate          int             // posts a second
	ReadRate          int             // reads a second
	// Now is the clock. Nil: the machine's. Proofs that need days set it.
	Now func() time.Time
}

// The sinks.
const (
	sinkAutumn = "autumn"
	sinkStripe = "stripe"
)

// word is what ids and names in a vendor's account look like.
var word = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)

// LoadConfig reads the configuration from the environment and reports every
// fault at once.
func LoadConfig(getenv func(string) string) (Config, error) {
	r := &env.Reader{Get: getenv}
	cfg := Config{
		Serve:             serve.LoadConfig(r, "outboxsvc", "OUTBOXSVC", serve.Defaults{GRPCListen: ":9103", HTTPListen: ":8103", Drain: 20 * time.Second}),
		BillingsvcTarget:  r.Need("BILLINGSVC_TARGET", "the gRPC host:port of billingsvc"),
		KeysvcTarget:      r.String("KEYSVC_TARGET", ""),
		Sink:              r.OneOf("BILLING_SINK", sinkAutumn, sinkAutumn, sinkStripe),
		Interval:          r.Duration("OUTBOX_INTERVAL", 2*time.Second),
		ReconcileInterval: r.Duration("OUTBOX_RECONCILE_INTERVAL", 5*time.Second),
		Concurrency:       r.Int("OUTBOX_CONCURRENCY", 64, 1, 500),
		PostRate:          r.Int("OUTBOX_RATE", 500, 1, 1500),
		ReadRate:          r.Int("OUTBOX_READ_RATE", 20, 1, 500),
	}
	installation := matching(r, "INSTALLATION_ID", "default")
	cfg.Autumn = loadAutumn(r, installation, cfg.Concurrency)
	cfg.Stripe = loadStripe(r, installation, cfg.Concurrency)
	for _, s := range r.List("AUTUMN_WEBHOOK_SECRET") {
		cfg.WebhookSecrets = append(cfg.WebhookSecrets, secret.New(s))
		if _, err := webhook.Key(secret.New(s)); err != nil {
			r.Fault("AUTUMN_WEBHOOK_SECRET", "%v", err)
		}
	}
	return cfg, r.Err()
}

func loadAutumn(r *env.Reader, installation string, concurrency int) autumn.Options {
	opt := autumn.Options{
		Key:            secret.New(r.String("AUTUMN_API_KEY", "")),
		KeyFile:        r.String("AUTUMN_API_KEY_FILE", ""),
		URL:            base(r, "AUTUMN_API_URL", "https://api.useautumn.com"),
		FeatureID:      matching(r, "AUTUMN_FEATURE_ID", "credits"),
		Env:            r.OneOf("AUTUMN_ENV", "", "sandbox", "live"),
		TopUpPlan:      r.String("AUTUMN_TOP_UP_PLAN", ""),
		InstallationID: installation,
		Concurrency:    concurrency,
	}
	if r.OneOf("AUTUMN_DEDUPE", "lock", "lock", "idempotency_key") == "idempotency_key" {
		opt.Dedupe = autumn.IdempotencyKey{}
	}
	if strings.HasPrefix(opt.Key.Reveal(), "am_pk_") {
		r.Fault("AUTUMN_API_KEY", "is a publishable key; a secret one, am_sk_…, is needed")
	}
	return opt
}

func loadStripe(r *env.Reader, installation string, concurrency int) stripe.Options {
	return stripe.Options{
		Key:            secret.New(r.String("STRIPE_API_KEY", "")),
		KeyFile:        r.String("STRIPE_API_KEY_FILE", ""),
		URL:            base(r, "STRIPE_API_URL", "https://api.stripe.com"),
		EventName:      matching(r, "STRIPE_METER_EVENT", "llm_micro_credits"),
		Livemode:       r.OneOf("STRIPE_MODE", "test", "test", "live") == "live",
		InstallationID: installation,
		Concurrency:    concurrency,
	}
}

// base reads the URL of a vendor's API.
func base(r *env.Reader, name, def string) string {
	v := r.String(name, def)
	if u, err := url.Parse(v); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		r.Fault(name, "is not a URL such as %s", def)
	}
	return v
}

// matching reads an id or a name in a vendor's account.
func matching(r *env.Reader, name, def string) string {
	v := r.String(name, def)
	if !word.MatchString(v) {
		r.Fault(name, "has other characters than letters, digits and . _ -, or is longer than 100")
	}
	return v
}
