package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Release ends a lease for a reconciliation without a report. The token moves on, so
// that a late report under it changes nothing.
func (s *Store) Release(ctx context.Context, r billing.Release) error {
	tag, err := s.db.Exec(ctx, `
		update billing.balances
		set reconcile_token = reconcile_token + 1, reconcile_until = null, reconcile_due_at = greatest(reconcile_due_at, @due_at)
		where team_id = @team_id and reconcile_token = @token and reported_token < @token`,
		pgx.StrictNamedArgs{"team_id": r.TeamID, "token": r.Token, "due_at": r.DueAt})
	if err != nil {
		return fmt.Errorf("release team: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fault.Errorf(fault.Conflict, "team %s is no longer leased to the caller", r.TeamID)
	}
	return nil
}
