package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// teamColumns fill a key.Team.
const teamColumns = `team_id, team_alias, models, max_budget_nano_usd, rpm_limit, tpm_limit,
	max_parallel_requests, budget_duration, metadata, status, status_reason, created_at, updated_at`

// Team implements key.Store.
func (s *Store) Team(ctx context.Context, teamID string) (key.Team, error) {
	var team key.Team
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `select `+teamColumns+` from keys.teams where team_id = @team_id`,
			pgx.StrictNamedArgs{"team_id": teamID})
		var err error
		team, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[key.Team])
		return found("find team", err)
	})
	return team, err
}

// Teams implements key.Store.
func (s *Store) Teams(ctx context.Context, after string, limit int) ([]key.Team, error) {
	var teams []key.Team
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select `+teamColumns+`
			from keys.teams
			where team_id > @after
			order by team_id
			limit @limit`,
			pgx.StrictNamedArgs{"after": after, "limit": limit})
		var err error
		if teams, err = pgx.CollectRows(rows, pgx.RowToStructByName[key.Team]); err != nil {
			return fmt.Errorf("list teams: %w", err)
		}
		return nil
	})
	return teams, err
}

// InsertTeam implements key.Tx.
func (t tx) InsertTeam(ctx context.Context, team key.Team) (bool, error) {
	tag, err := t.Exec(ctx, `
		insert into keys.teams (`+teamColumns+`)
		values (@team_id, @team_alias, @models, @max_budget_nano_usd, @rpm_limit, @tpm_limit,
			@max_parallel_requests, @budget_duration, @metadata, @status, @status_reason, @created_at, @updated_at)
		on conflict (team_id) do nothing`,
		pgx.StrictNamedArgs{
			"team_id": team.TeamID, "team_alias": team.TeamAlias, "models": team.Models,
			"max_budget_nano_usd": team.MaxBudgetNanoUSD, "rpm_limit": team.RPMLimit, "tpm_limit": team.TPMLimit,
			"max_parallel_requests": team.MaxParallelRequests, "budget_duration": team.BudgetDuration,
			"metadata": team.Metadata, "status": team.Status, "status_reason": team.StatusReason,
			"created_at": team.CreatedAt, "updated_at": team.UpdatedAt,
		})
	if err != nil {
		return false, fmt.Errorf("insert team: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// LockTeam implements key.Tx. The lock is the weaker kind that lets others
// insert keys of the team.
func (t tx) LockTeam(ctx context.Context, teamID string) (key.Team, error) {
	rows, _ := t.Query(ctx, `select `+teamColumns+` from keys.teams where team_id = @team_id for no key update`,
		pgx.StrictNamedArgs{"team_id": teamID})
	team, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[key.Team])
	return team, found("lock team", err)
}

// UpdateTeam implements key.Tx.
func (t tx) UpdateTeam(ctx context.Context, team key.Team) error {
	_, err := t.Exec(ctx, `
		update keys.teams
		set status = @status, status_reason = @status_reason, updated_at = @updated_at
		where team_id = @team_id`,
		pgx.StrictNamedArgs{
			"team_id": team.TeamID, "status": team.Status,
			"status_reason": team.StatusReason, "updated_at": team.UpdatedAt,
		})
	if err != nil {
		return fmt.Errorf("update team: %w", err)
	}
	return nil
}
