// Package autumn posts charges to Autumn (useautumn.com). Autumn's API keeps
// few of the promises one would expect of it, so this client asks for exactly
// one thing in exactly one way and reports what came back, unjudged:
//
//   - POST /v1/track, never /check: that one answers 202 without deducting;
//   - x-api-version pinned: without it the shape depends on the account's age,
//     and old shapes do not say what was deducted;
//   - overage_behavior "overflow": the default drops what does not fit;
//   - a lock id as the dedupe device: it is checked together with the
//     deduction, Idempotency-Key is not;
//   - no retries and no redirects: an attempt is one request.
package autumn

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

const (
	apiVersion     = "2.3.0"
	defaultTimeout = 10 * time.Second
	maxAnswer      = 1 << 20
)

// Options say which Autumn is meant.
type Options struct {
	// URL is Autumn's base, with or without /v1.
	URL string
	Key secret.String
	// FeatureID is the metered feature that is deducted.
	FeatureID string
	// Env is "sandbox" or "live"; the key must belong to it. Empty: any.
	Env string
	// InstallationID sets this installation's charges apart from those of
	// others that use the same Autumn account.
	InstallationID string
	// Concurrency is how many connections are kept open.
	Concurrency int
	// Timeout bounds one request. Zero: 10 s, a sixth of a charge's lease.
	Timeout time.Duration
	// Dedupe is how Autumn is told to apply a charge once. Nil: Lock.
	Dedupe Dedupe
}

// Client implements relay.Sink.
type Client struct {
	opt  Options
	http *http.Client

	mu    sync.Mutex
	envOK bool // the key's environment was seen to be the wanted one
}

var _ relay.Sink = (*Client)(nil)

// New makes a client.
func New(opt Options) *Client {
	opt.URL = strings.TrimSuffix(strings.TrimRight(opt.URL, "/"), "/v1")
	if opt.Timeout == 0 {
		opt.Timeout = defaultTimeout
	}
	if opt.Dedupe == nil {
		opt.Dedupe = Lock{}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = opt.Concurrency, opt.Concurrency
	return &Client{opt: opt, http: &http.Client{
		Transport: transport,
		Timeout:   opt.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // whoever redirects is not Autumn
		},
	}}
}

// key is the id under which Autumn applies a charge once, for ever the same. Its
// scope at Autumn is the account's environment, hence the installation in it.
func (c *Client) key(chargeID string) string {
	env := c.opt.Env
	if env == "" {
		env = "default"
	}
	return "llm-proxy:" + env + ":" + c.opt.InstallationID + ":batch:" + chargeID
}
