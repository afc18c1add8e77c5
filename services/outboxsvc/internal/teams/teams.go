// Package teams asks keysvc what a team is called.
package teams

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysvcv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/autumn"
)

const callTimeout = 5 * time.Second

// Client implements autumn.Teams.
type Client struct{ api keysvcv1.TeamServiceClient }

var _ autumn.Teams = (*Client)(nil)

// New makes a client on a connection that stays the caller's.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{keysvcv1.NewTeamServiceClient(conn)}
}

// Profile is the team's name, and the address in metadata.billing_email. A team
// that keysvc does not know has neither: it may have been deleted, and still
// owes.
func (c *Client) Profile(ctx context.Context, teamID string) (autumn.Profile, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.GetTeam(ctx, &keysvcv1.GetTeamRequest{TeamId: teamID})
	switch {
	case status.Code(err) == codes.NotFound:
		return autumn.Profile{}, nil
	case err != nil:
		return autumn.Profile{}, fault.Wrap(fault.Unavailable, err, fmt.Sprintf("keysvc answered %s", status.Code(err)))
	}
	t := resp.GetTeam()
	return autumn.Profile{Name: t.GetTeamAlias(), Email: t.GetMetadata().GetFields()["billing_email"].GetStringValue()}, nil
}
