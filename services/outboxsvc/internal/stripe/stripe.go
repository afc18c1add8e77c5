// Package stripe posts charges to Stripe's billing meters, as meter events. What
// it asks for and relies on is documented by Stripe:
//
//   - an event's identifier is unique for at least 24 hours; a second event under
//     it is refused with 400, so that sending again is safe. Idempotency-Key is
//     not used, since it repeats a stored 500 for as long;
//   - a meter takes whole numbers only: the value is micro-credits, and the
//     price of the meter must be one of micro-credits;
//   - a timestamp is at most 35 days old and 5 minutes ahead;
//   - one call at a time for a customer and meter, 1000 a second in all.
//
// Stripe keeps no credits: there is no balance to read, and what it accepted it
// counts later. So a charge in doubt for longer than the identifier lives is left
// to a human.
package stripe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/credential"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

const (
	apiVersion = "2025-04-30.basil"
	// oldest is a day less than what Stripe takes.
	oldest = 34 * 24 * time.Hour
)

// Options say which Stripe account and meter are meant.
type Options struct {
	URL     string // without /v1
	Key     secret.String
	KeyFile string // holds the key instead; it may come and change later
	// EventName is that of the meter.
	EventName string
	// Livemode must be the key's mode.
	Livemode bool
	// InstallationID sets this installation's events apart from those of others
	// on the same account.
	InstallationID string
	Concurrency    int
	Timeout        time.Duration    // of one request; zero: 10 s
	Now            func() time.Time // nil: time.Now
	// Name tells what a customer is to be called. Nil: by the team's id.
	Name func(ctx context.Context, teamID string) (string, error)
}

// Client implements relay.Sink.
type Client struct {
	opt  Options
	wire *wire.Client

	mu        sync.Mutex
	customers map[string]string // by team
}

var _ relay.Sink = (*Client)(nil)

// New makes a client.
func New(opt Options) *Client {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Client{opt: opt, customers: map[string]string{}, wire: wire.New(wire.Options{
		Vendor: "STRIPE", URL: opt.URL, Key: credential.Source{Value: opt.Key, File: opt.KeyFile},
		Header:      http.Header{"Stripe-Version": {apiVersion}},
		Concurrency: opt.Concurrency, Timeout: opt.Timeout,
	})}
}

// Configured implements relay.Sink.
func (c *Client) Configured() bool { return c.wire.Configured() }

// device is what billing keeps of the way in which Stripe takes an event once.
const device = "stripe/identifier"

// Dedupe implements relay.Sink.
func (c *Client) Dedupe(d string) (relay.Dedupe, bool) { return relay.Collapsing, d == device }

// Ready implements relay.Sink: the key must be of the wanted mode, and its
// account must have the meter, active and summing up.
func (c *Client) Ready(ctx context.Context) error {
	return c.wire.Once(func() error { return c.check(ctx) })
}

// check looks through the account's meters.
func (c *Client) check(ctx context.Context) error {
	var list struct {
		Data []struct {
			EventName   string `json:"event_name"`
			Livemode    bool   `json:"livemode"`
			Aggregation struct {
				Formula string `json:"formula"`
			} `json:"default_aggregation"`
		} `json:"data"`
	}
	if err := c.read(ctx, "/v1/billing/meters?status=active&limit=100", &list); err != nil {
		return err
	}
	for _, m := range list.Data {
		switch {
		case m.EventName != c.opt.EventName:
		case m.Livemode != c.opt.Livemode:
			return fault.Errorf(fault.Precondition, "STRIPE_API_KEY is of the wrong mode (livemode %t): nothing is posted", m.Livemode)
		case m.Aggregation.Formula != "sum":
			return fault.Errorf(fault.Precondition, "Stripe's meter of %s does not sum up", c.opt.EventName)
		default:
			return nil
		}
	}
	return fault.Errorf(fault.Precondition, "Stripe has no active meter with the event name %s", c.opt.EventName)
}

// Via implements relay.Sink.
func (c *Client) Via(charge relay.Charge) relay.Via {
	mode := "test"
	if c.opt.Livemode {
		mode = "live"
	}
	return relay.Via{Device: device, Key: "llm-proxy:" + mode + ":" + c.opt.InstallationID + ":batch:" + charge.ChargeID}
}

// identifier is the id under which Stripe takes a charge once: at most 100
// characters, and ours may be longer.
func identifier(charge relay.Charge) string {
	sum := sha256.Sum256([]byte(charge.Key()))
	return "llmproxy_" + hex.EncodeToString(sum[:])
}

// Post implements relay.Sink.
func (c *Client) Post(ctx context.Context, charge relay.Charge) relay.Answer {
	if charge.Via == (relay.Via{}) {
		charge.Via = c.Via(charge)
	}
	customer, err := c.customer(ctx, charge.TeamID)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return relay.Answer{Status: http.StatusNotFound, Code: relay.CodeNoCustomer, Message: "Stripe has no customer of the team"}
	case fault.KindOf(err) == fault.Precondition:
		return relay.Answer{Status: http.StatusUnauthorized, Code: "invalid_api_key"}
	case err != nil:
		return relay.Answer{NeverSent: true, Failure: "find customer: " + fault.Text(err)}
	}
	micro := strconv.FormatInt(int64(charge.AmountNanoUSD/money.MicroCredit), 10)
	at := charge.FrozenAt
	if earliest := c.opt.Now().Add(-oldest); at.Before(earliest) {
		at = earliest // it is billed late, which is better than never
	}
	return c.answer(c.call(ctx, http.MethodPost, "/v1/billing/meter_events", url.Values{
		"event_name": {c.opt.EventName}, "identifier": {identifier(charge)}, "timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"payload[stripe_customer_id]": {customer}, "payload[value]": {micro},
	}, nil), micro)
}

// answer reads what came back of a meter event. Stripe says what it took: the
// value is in it.
func (c *Client) answer(r wire.Response, micro string) relay.Answer {
	a := relay.Answer{Failure: r.Failure, NeverSent: r.NeverSent, Status: r.Status, RetryAfter: r.RetryAfter, Feature: c.opt.EventName}
	if a.Failure != "" {
		return a
	}
	var body struct {
		errorBody
		Object  string            `json:"object"`
		Payload map[string]string `json:"payload"`
	}
	if !wire.Decode(r.Body, &body) {
		a.Foreign = true
		return a
	}
	a.Code, a.Message = c.wire.Clean(body.Error.name()), c.wire.Clean(body.Error.Message)
	switch {
	case r.Status == http.StatusOK && body.Object == "billing.meter_event" && body.Payload["value"] == micro:
		n, err := strconv.ParseInt(micro, 10, 64)
		a.Says, a.HasBalance, a.Deducted = err == nil, true, n
	case r.Status == http.StatusBadRequest && strings.Contains(body.Error.Message, "already exists with identifier"):
		a.Status, a.Code = http.StatusConflict, relay.CodeLockExists
	}
	return a
}

// Sight implements relay.Sink: there is no balance.
func (c *Client) Sight(context.Context, string) (relay.Sighting, error) {
	return relay.Sighting{}, fault.Errorf(fault.NotFound, "Stripe's meters have no balances")
}

// Held implements relay.Sink: Stripe does not list meter events.
func (c *Client) Held(context.Context, relay.Charge) (money.NanoUSD, bool, error) {
	return 0, false, nil
}

// Buy implements relay.Sink: a meter is billed afterwards, nothing is bought.
func (c *Client) Buy(context.Context, relay.TopUp) relay.Purchase {
	return relay.Purchase{Outcome: relay.Rejected, Detail: "Stripe's meters have no credits to top up"}
}

// read gets something, or turns the answer into a fault.
func (c *Client) read(ctx context.Context, path string, into any) error {
	return c.judge(c.call(ctx, http.MethodGet, path, nil, nil), into)
}

func (c *Client) judge(r wire.Response, into any) error {
	if r.Failure != "" {
		return fault.Errorf(fault.Unavailable, "Stripe does not answer: %s", r.Failure)
	}
	var body errorBody
	if !wire.Decode(r.Body, &body) {
		return fault.Errorf(fault.Unavailable, "Stripe answered %d and a body that is not its own", r.Status)
	}
	what := c.wire.Clean(fmt.Sprintf("%d %s", r.Status, body.Error.name()))
	switch {
	case r.Status == http.StatusOK && wire.Decode(r.Body, into):
		return nil
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return fault.Errorf(fault.Precondition, "Stripe refuses STRIPE_API_KEY: %s", what)
	}
	return fault.Errorf(fault.Unavailable, "Stripe answered %s", what)
}
