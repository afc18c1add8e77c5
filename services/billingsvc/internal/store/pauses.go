package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Pause stops the posting of a team, or, without one, of all. Another pause of
// the same replaces its reason.
func (s *Store) Pause(ctx context.Context, p billing.Pause, op billing.Operation) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			insert into billing.pauses (team_id, actor, reason, paused_at)
			values (@team_id, @actor, @reason, @now)
			on conflict (team_id) do update set actor = @actor, reason = @reason, paused_at = @now`,
			pgx.StrictNamedArgs{"team_id": p.TeamID, "actor": p.Actor, "reason": p.Reason, "now": p.PausedAt})
		if err != nil {
			return fmt.Errorf("pause: %w", err)
		}
		return writeOperation(ctx, tx, &op)
	})
}

// Resume ends a pause and says whether there was one.
func (s *Store) Resume(ctx context.Context, teamID string, op billing.Operation) (bool, error) {
	resumed := false
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from billing.pauses where team_id = @team_id`, pgx.StrictNamedArgs{"team_id": teamID})
		if err != nil {
			return fmt.Errorf("resume: %w", err)
		}
		if resumed = tag.RowsAffected() > 0; !resumed {
			return nil
		}
		return writeOperation(ctx, tx, &op)
	})
	return resumed, err
}

// Pauses lists what is paused.
func (s *Store) Pauses(ctx context.Context) ([]billing.Pause, error) {
	rows, _ := s.db.Query(ctx, `select team_id, actor, reason, paused_at from billing.pauses order by team_id`)
	return collect[billing.Pause](rows, "list pauses")
}
