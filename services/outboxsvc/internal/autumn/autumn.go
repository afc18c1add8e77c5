// Package autumn posts charges to Autumn (useautumn.com). Autumn's API keeps
// few of the promises one would expect of it, so this client asks for exactly
// one thing in exactly one way and reports what came back, unjudged:
//
//   - POST /v1/track, never /check: that one answers 202 without deducting;
//   - x-api-version pinned: without it the shape depends on the account's age,
//     and old shapes do not say what was deducted;
//   - overage_behavior "overflow": the default drops what does not fit;
//   - an id in the way that Dedupe says, for ever the same;
//   - no retries and no redirects: an attempt is one request.
//
// The customer is the team, under the team's id, for posts and for reads alike.
package autumn

import (
	"context"
	"net/http"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/credential"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

const apiVersion = "2.3.0"

// Options say which Autumn is meant.
type Options struct {
	// URL is Autumn's base, with or without /v1.
	URL string
	Key secret.String
	// KeyFile holds the key instead. It may come and change later.
	KeyFile string
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
	// Dedupe is how Autumn is told to apply a charge once, unless an attempt of it
	// is in doubt that was told in another way. Nil: Lock.
	Dedupe Dedupe
	// TopUpPlan is the one-off plan that a top-up buys credits of. Empty: none
	// can be bought.
	TopUpPlan string
	// Teams tells what a customer is to be called. Nil: by the team's id.
	Teams Teams
}

// Profile is what Autumn is told of a team that becomes a customer.
type Profile struct{ Name, Email string }

// Teams knows the teams.
type Teams interface {
	Profile(ctx context.Context, teamID string) (Profile, error)
}

// Client implements relay.Sink.
type Client struct {
	opt  Options
	wire *wire.Client
}

var _ relay.Sink = (*Client)(nil)

// New makes a client.
func New(opt Options) *Client {
	if opt.Dedupe == nil {
		opt.Dedupe = Lock{}
	}
	return &Client{opt: opt, wire: wire.New(wire.Options{
		Vendor: "AUTUMN", URL: opt.URL, Key: credential.Source{Value: opt.Key, File: opt.KeyFile},
		Header:      http.Header{"X-Api-Version": {apiVersion}, "Accept": {"application/json"}},
		Concurrency: opt.Concurrency, Timeout: opt.Timeout,
	})}
}

// Configured implements relay.Sink.
func (c *Client) Configured() bool { return c.wire.Configured() }

// Dedupe implements relay.Sink.
func (c *Client) Dedupe(device string) (relay.Dedupe, bool) {
	d, ok := byDevice(device)
	if !ok {
		return relay.Collapsing, false
	}
	return d.Kind(), true
}

// Via implements relay.Sink. The scope of a key at Autumn is the account's
// environment, hence the installation in it.
func (c *Client) Via(charge relay.Charge) relay.Via {
	return relay.Via{Device: c.opt.Dedupe.Device(), Key: c.prefix() + "batch:" + charge.ChargeID}
}

func (c *Client) prefix() string {
	env := c.opt.Env
	if env == "" {
		env = "default"
	}
	return "llm-proxy:" + env + ":" + c.opt.InstallationID + ":"
}
