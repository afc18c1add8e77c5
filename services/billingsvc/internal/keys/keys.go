// Package keys tells keysvc of teams' gates.
package keys

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keysvcv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Client implements billing.Keys.
type Client struct{ api keysvcv1.TeamServiceClient }

var _ billing.Keys = (*Client)(nil)

// New makes a client on a connection that stays the caller's.
func New(conn grpc.ClientConnInterface) *Client { return &Client{keysvcv1.NewTeamServiceClient(conn)} }

var statuses = map[billing.Status]keysvcv1.TeamStatus{
	billing.StatusActive:    keysvcv1.TeamStatus_TEAM_STATUS_ACTIVE,
	billing.StatusExhausted: keysvcv1.TeamStatus_TEAM_STATUS_EXHAUSTED,
	billing.StatusSuspended: keysvcv1.TeamStatus_TEAM_STATUS_SUSPENDED,
}

// SetGate implements billing.Keys.
func (c *Client) SetGate(ctx context.Context, a billing.Announcement) (newest int64, err error) {
	resp, err := c.api.SetTeamStatus(ctx, &keysvcv1.SetTeamStatusRequest{
		TeamId: a.TeamID, Status: statuses[a.Gate.Status()], Reason: a.Gate.Reason, GateGeneration: a.Generation,
	})
	if err != nil {
		return 0, faultOf(err)
	}
	return resp.GetGateGeneration(), nil
}

// faultOf keeps what the announcer acts on. Any other status is about us and
// keysvc.
func faultOf(err error) error {
	switch status.Code(err) {
	case codes.NotFound:
		return fault.Wrap(fault.NotFound, err, "keysvc does not know the team")
	case codes.FailedPrecondition:
		return billing.ErrBlocked
	case codes.Canceled:
		return err
	default:
		return fault.Wrap(fault.Unavailable, err, "keysvc cannot be told: it answered "+status.Code(err).String())
	}
}
