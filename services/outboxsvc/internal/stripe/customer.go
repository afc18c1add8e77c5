package stripe

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// customer finds the customer whose metadata.team_id is the team's id. NotFound:
// there is none, or Stripe's search does not know it yet.
func (c *Client) customer(ctx context.Context, teamID string) (string, error) {
	c.mu.Lock()
	id, ok := c.customers[teamID]
	c.mu.Unlock()
	if ok {
		return id, nil
	}
	var found struct {
		Data []struct {
			ID      string `json:"id"`
			Created int64  `json:"created"`
		} `json:"data"`
	}
	query := fmt.Sprintf("metadata['team_id']:'%s'", strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(teamID))
	if err := c.read(ctx, "/v1/customers/search?query="+url.QueryEscape(query), &found); err != nil {
		return "", err
	}
	if len(found.Data) == 0 {
		return "", fault.Errorf(fault.NotFound, "Stripe has no customer of team %s", teamID)
	}
	first := found.Data[0]
	for _, d := range found.Data {
		if d.Created < first.Created {
			first = d // should there be two, everybody takes the same one
		}
	}
	c.remember(teamID, first.ID)
	return first.ID, nil
}

// CreateCustomer implements relay.Sink. Its Idempotency-Key makes one customer of
// several attempts until the search knows it; as Stripe repeats a stored 500 for as
// long, the search is asked first.
func (c *Client) CreateCustomer(ctx context.Context, teamID string) error {
	if _, err := c.customer(ctx, teamID); fault.KindOf(err) != fault.NotFound {
		return err
	}
	name := teamID
	if c.opt.Name != nil {
		n, err := c.opt.Name(ctx, teamID)
		if err != nil {
			return fmt.Errorf("find team: %w", err)
		}
		if n != "" {
			name = n
		}
	}
	var made struct {
		ID string `json:"id"`
	}
	r := c.call(ctx, http.MethodPost, "/v1/customers", url.Values{"name": {name}, "metadata[team_id]": {teamID}}, http.Header{
		"Idempotency-Key": {"llm-proxy:" + c.opt.InstallationID + ":customer:" + teamID},
	})
	if err := c.judge(r, &made); err != nil {
		return err
	}
	if made.ID == "" {
		return fault.Errorf(fault.Unavailable, "Stripe made a customer without an id")
	}
	c.remember(teamID, made.ID)
	return nil
}

func (c *Client) remember(teamID, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.customers[teamID] = id
}
