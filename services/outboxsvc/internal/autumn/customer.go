package autumn

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// CreateCustomer implements relay.Sink. It is get-or-create; a default plan is
// attached by Autumn.
func (c *Client) CreateCustomer(ctx context.Context, teamID string) error {
	r := c.call(ctx, http.MethodPost, "/v1/customers", map[string]string{"id": teamID, "name": teamID}, nil)
	_, err := c.read(r, &struct{}{})
	return err
}

// Balance implements relay.Sink.
func (c *Client) Balance(ctx context.Context, teamID string) (relay.Balance, error) {
	var customer struct {
		Balances map[string]struct {
			Granted   json.Number `json:"granted"`
			Remaining json.Number `json:"remaining"`
			Usage     json.Number `json:"usage"`
		} `json:"balances"`
	}
	if _, err := c.read(c.call(ctx, http.MethodGet, "/v1/customers/"+url.PathEscape(teamID), nil, nil), &customer); err != nil {
		return relay.Balance{}, err
	}
	b, ok := customer.Balances[c.opt.FeatureID]
	if !ok {
		return relay.Balance{}, fault.Errorf(fault.NotFound, "Autumn has no balance of feature %s for team %s: attach a plan", c.opt.FeatureID, teamID)
	}
	return relay.Balance{Remaining: plain(b.Remaining), Used: plain(b.Usage), Granted: plain(b.Granted)}, nil
}

// Ready implements relay.Sink: when an environment is wanted, the key must
// belong to it. Every answer about a customer names it, also that there is none.
func (c *Client) Ready(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opt.Env == "" || c.envOK {
		return nil
	}
	var customer struct{}
	env, err := c.read(c.call(ctx, http.MethodGet, "/v1/customers/llm-proxy-environment-check", nil, nil), &customer)
	switch {
	case env == c.opt.Env && (err == nil || fault.KindOf(err) == fault.NotFound):
		c.envOK = true
		return nil
	case err != nil && fault.KindOf(err) != fault.NotFound:
		return err
	case env == "":
		return fault.Errorf(fault.Unavailable, "Autumn does not say which environment AUTUMN_API_KEY belongs to")
	}
	return fault.Errorf(fault.Precondition, "AUTUMN_API_KEY belongs to Autumn's %s environment, AUTUMN_ENV says %s: nothing is posted", c.clean(env), c.opt.Env)
}

// read decodes an answer about a customer, or turns it into a fault. It returns
// the environment that the answer named.
func (c *Client) read(r response, into any) (env string, err error) {
	if r.failure != "" {
		return "", fault.Errorf(fault.Unavailable, "Autumn does not answer: %s", r.failure)
	}
	var head answerBody
	if !decode(r.body, &head) {
		return "", fault.Errorf(fault.Unavailable, "Autumn answered %d and a body that is not its own", r.status)
	}
	what := c.clean(fmt.Sprintf("%d %s", r.status, head.Code))
	switch {
	case r.status == http.StatusOK && decode(r.body, into):
		return head.Env, nil
	case r.status == http.StatusNotFound && head.Code == "customer_not_found":
		return head.Env, fault.Errorf(fault.NotFound, "Autumn does not know the team")
	case r.status == http.StatusUnauthorized, r.status == http.StatusForbidden:
		return head.Env, fault.Errorf(fault.Precondition, "Autumn refuses AUTUMN_API_KEY: %s", what)
	}
	return head.Env, fault.Errorf(fault.Unavailable, "Autumn answered %s", what)
}
