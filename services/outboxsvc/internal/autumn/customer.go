package autumn

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

// CreateCustomer implements relay.Sink. It is get-or-create; a default plan is
// attached by Autumn.
func (c *Client) CreateCustomer(ctx context.Context, teamID string) error {
	body := map[string]string{"id": teamID, "name": teamID}
	if c.opt.Teams != nil {
		p, err := c.opt.Teams.Profile(ctx, teamID)
		if err != nil {
			return fmt.Errorf("find team: %w", err)
		}
		if p.Name != "" {
			body["name"] = p.Name
		}
		if p.Email != "" {
			body["email"] = p.Email
		}
	}
	_, err := c.read(c.call(ctx, http.MethodPost, "/v1/customers", body, nil), &struct{}{})
	return err
}

// feature is a customer's balance of one feature.
type feature struct {
	Granted     json.Number `json:"granted"`
	Remaining   json.Number `json:"remaining"`
	Usage       json.Number `json:"usage"`
	Unlimited   bool        `json:"unlimited"`
	NextResetAt *int64      `json:"next_reset_at"` // unix milliseconds
	Breakdown   []row       `json:"breakdown"`
	Rollovers   []struct {
		Balance json.Number `json:"balance"`
	} `json:"rollovers"`
}

// row is one of the balances that a feature's balance consists of.
type row struct {
	IncludedGrant json.Number `json:"included_grant"`
	PrepaidGrant  json.Number `json:"prepaid_grant"`
	Remaining     json.Number `json:"remaining"`
	Usage         json.Number `json:"usage"`
}

// Sight implements relay.Sink.
func (c *Client) Sight(ctx context.Context, teamID string) (relay.Sighting, error) {
	var customer struct {
		CreatedAt int64              `json:"created_at"` // unix milliseconds
		Balances  map[string]feature `json:"balances"`
	}
	if _, err := c.read(c.call(ctx, http.MethodGet, "/v1/customers/"+url.PathEscape(teamID), nil, nil), &customer); err != nil {
		return relay.Sighting{}, err
	}
	if customer.Balances == nil {
		return relay.Sighting{}, fault.Errorf(fault.Unavailable, "Autumn answered without balances, as an old version does")
	}
	b, ok := customer.Balances[c.opt.FeatureID]
	if !ok {
		return relay.Sighting{}, fault.Errorf(fault.NotFound, "Autumn has no balance of feature %s for team %s: attach a plan", c.opt.FeatureID, teamID)
	}
	signed, err := b.signed()
	if err != nil {
		return relay.Sighting{}, fault.Errorf(fault.Unavailable, "Autumn answered with a balance that cannot be read: %v", err)
	}
	s := relay.Sighting{
		Remaining: plain(b.Remaining), Used: plain(b.Usage), Granted: plain(b.Granted), Signed: signed, Unlimited: b.Unlimited,
	}
	if customer.CreatedAt > 0 {
		s.Since = time.UnixMilli(customer.CreatedAt).UTC()
	}
	if b.NextResetAt != nil {
		s.ResetAt = time.UnixMilli(*b.NextResetAt).UTC()
	}
	return s, nil
}

// Ready implements relay.Sink: Autumn must take the key, and when an environment
// is wanted the key must belong to it. Every answer about a customer names it,
// also that there is none.
func (c *Client) Ready(ctx context.Context) error {
	return c.wire.Once(func() error { return c.check(ctx) })
}

// check asks for a customer that nobody has.
func (c *Client) check(ctx context.Context) error {
	var customer struct{}
	env, err := c.read(c.call(ctx, http.MethodGet, "/v1/customers/llm-proxy-environment-check", nil, nil), &customer)
	known := err == nil || fault.KindOf(err) == fault.NotFound
	switch {
	case known && (env == c.opt.Env || c.opt.Env == ""):
		return nil
	case !known:
		return err
	case env == "":
		return fault.Errorf(fault.Unavailable, "Autumn does not say which environment AUTUMN_API_KEY belongs to")
	}
	return fault.Errorf(fault.Precondition, "AUTUMN_API_KEY belongs to Autumn's %s environment, AUTUMN_ENV says %s: nothing is posted", c.clean(env), c.opt.Env)
}

// read decodes an answer about a customer, or turns it into a fault. It returns
// the environment that the answer named.
func (c *Client) read(r wire.Response, into any) (env string, err error) {
	if r.Failure != "" {
		return "", fault.Errorf(fault.Unavailable, "Autumn does not answer: %s", r.Failure)
	}
	var head answerBody
	if !wire.Decode(r.Body, &head) {
		return "", fault.Errorf(fault.Unavailable, "Autumn answered %d and a body that is not its own", r.Status)
	}
	what := c.clean(fmt.Sprintf("%d %s", r.Status, head.Code))
	switch {
	case r.Status == http.StatusOK && wire.Decode(r.Body, into):
		return head.Env, nil
	case r.Status == http.StatusNotFound && head.Code == relay.CodeNoCustomer:
		return head.Env, fault.Errorf(fault.NotFound, "Autumn does not know the team")
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden:
		return head.Env, fault.Errorf(fault.Precondition, "Autumn refuses AUTUMN_API_KEY: %s", what)
	}
	return head.Env, fault.Errorf(fault.Unavailable, "Autumn answered %s", what)
}
