package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// MarkupsOf returns all markups of the teams, by effective_from and then by when
// they were set.
func (s *Store) MarkupsOf(ctx context.Context, teams []string) ([]billing.TeamMarkup, error) {
	rows, _ := s.db.Query(ctx, `
		select markup_id, team_id, markup, effective_from, actor, reason, created_at
		from billing.markups
		where team_id = any(@teams)
		order by effective_from, created_at, markup_id`,
		pgx.StrictNamedArgs{"teams": teams})
	return collect[billing.TeamMarkup](rows, "read markups")
}

// SetMarkup adds a markup and keeps who set it.
func (s *Store) SetMarkup(ctx context.Context, m billing.TeamMarkup) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			insert into billing.markups (markup_id, team_id, markup, effective_from, actor, reason, created_at)
			values (@id, @team_id, @markup, @from, @actor, @reason, @now)`,
			pgx.StrictNamedArgs{
				"id": m.MarkupID, "team_id": m.TeamID, "markup": m.Markup, "from": m.EffectiveFrom, "actor": m.Actor,
				"reason": m.Reason, "now": m.CreatedAt,
			})
		if err != nil {
			return fmt.Errorf("set markup: %w", err)
		}
		op := billing.NewOperation("markup", m.TeamID, billing.By{Actor: m.Actor, Reason: m.Reason}, map[string]any{
			"markup_id": m.MarkupID, "markup": m.Markup, "effective_from": m.EffectiveFrom,
		}, m.CreatedAt)
		return writeOperation(ctx, tx, &op)
	})
}

// ListMarkups lists markups, newest first.
func (s *Store) ListMarkups(ctx context.Context, teamID, before string, limit int) ([]billing.TeamMarkup, error) {
	rows, _ := s.db.Query(ctx, `
		select markup_id, team_id, markup, effective_from, actor, reason, created_at
		from billing.markups
		where (@team_id = '' or team_id = @team_id) and (@before = '' or markup_id < @before)
		order by markup_id desc
		limit @limit`,
		pgx.StrictNamedArgs{"team_id": teamID, "before": before, "limit": limit})
	return collect[billing.TeamMarkup](rows, "list markups")
}
