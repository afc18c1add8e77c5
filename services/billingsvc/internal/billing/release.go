package billing

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Release gives back a leased team whose balance could not be read.
type Release struct {
	TeamID string
	Token  int64
	DueAt  time.Time // not before this is the team read again, unless somebody asks
}

// Releaser takes leases for reconciliations back.
type Releaser interface {
	// Release ends a lease without a report, so that the team's charges go on.
	// Conflict when it is another's, or was reported.
	Release(ctx context.Context, r Release) error
}

// Release gives back a leased team whose balance could not be read; after a while it
// is due again.
func (s *Service) Release(ctx context.Context, teamID string, token int64, after time.Duration) error {
	if err := checkTeam(teamID); err != nil {
		return err
	}
	if token <= 0 {
		return fault.Errorf(fault.Invalid, "lease_token is not the token of a lease")
	}
	return s.store.Release(ctx, Release{TeamID: teamID, Token: token, DueAt: s.now().Add(after)})
}
