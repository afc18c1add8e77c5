package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// teamColumns fill a key.Team.
const teamColumns = `team_id, team_alias, models, max_budget_nano_usd, rpm_limit, tpm_limit,
	max_parallel_requests, budget_duration, finer, metadata, status, status_reason, gate_generation,
	created_at, updated_at, deleted_at`

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
func (s *Store) Teams(ctx context.Context, f key.TeamFilter, slice key.Slice) ([]key.Team, error) {
	where, args := teamFilter(f)
	if slice.Behind != nil {
		where, args["behind"] = where+" and team_id > @behind", slice.Behind.ID
	}
	args["skip"], args["limit"] = slice.Skip, slice.Limit
	var teams []key.Team
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select `+teamColumns+`
			from keys.teams
			where `+where+`
			order by team_id
			offset @skip
			limit @limit`, args)
		var err error
		if teams, err = pgx.CollectRows(rows, pgx.RowToStructByName[key.Team]); err != nil {
			return fmt.Errorf("list teams: %w", err)
		}
		return nil
	})
	return teams, err
}

// CountTeams implements key.Store.
func (s *Store) CountTeams(ctx context.Context, f key.TeamFilter) (int64, error) {
	where, args := teamFilter(f)
	return s.count(ctx, "keys.teams", where, args)
}

// teamFilter is the condition on keys.teams and its arguments.
func teamFilter(f key.TeamFilter) (string, pgx.StrictNamedArgs) {
	where, args := []string{"true"}, pgx.StrictNamedArgs{}
	if f.TeamAlias != "" {
		where, args["team_alias"] = append(where, "team_alias = @team_alias"), f.TeamAlias
	}
	if f.Status != "" {
		where, args["status"] = append(where, "status = @status"), f.Status
	}
	if f.UserID != "" {
		where = append(where, "team_id in (select k.team_id from keys.keys k where k.user_id = @user_id and k.user_id <> '')")
		args["user_id"] = f.UserID
	}
	if !f.Deleted {
		where = append(where, "deleted_at is null")
	}
	return strings.Join(where, " and "), args
}

// HasTeam implements key.Tx.
func (t tx) HasTeam(ctx context.Context, teamID string) (bool, error) {
	var has bool
	err := t.QueryRow(ctx, `select exists (select from keys.teams where team_id = @team_id and deleted_at is null)`,
		pgx.StrictNamedArgs{"team_id": teamID}).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("look for team: %w", err)
	}
	return has, nil
}

// InsertTeam implements key.Tx. The caller holds the team, so that none is
// deleted while this runs.
func (t tx) InsertTeam(ctx context.Context, team key.Team) (key.Insertion, error) {
	var inserted, deleted bool
	err := t.QueryRow(ctx, `
		with team as (
			insert into keys.teams (`+teamColumns+`)
			values (@team_id, @team_alias, @models, @max_budget_nano_usd, @rpm_limit, @tpm_limit,
				@max_parallel_requests, @budget_duration, @finer, @metadata, @status, @status_reason, @gate_generation,
				@created_at, @updated_at, @deleted_at)
			on conflict (team_id) do nothing
			returning team_id
		)
		select exists (select from team), exists (select from keys.teams where team_id = @team_id and deleted_at is not null)`,
		teamArgs(team)).Scan(&inserted, &deleted)
	switch {
	case err != nil:
		return 0, fmt.Errorf("insert team: %w", err)
	case inserted:
		return key.Inserted, nil
	case deleted:
		return key.WasDeleted, nil
	}
	return key.Existed, nil
}

// teamArgs are all columns of a team by their names.
func teamArgs(team key.Team) pgx.StrictNamedArgs {
	return pgx.StrictNamedArgs{
		"team_id": team.TeamID, "team_alias": team.TeamAlias, "models": team.Models,
		"max_budget_nano_usd": team.MaxBudgetNanoUSD, "rpm_limit": team.RPMLimit, "tpm_limit": team.TPMLimit,
		"max_parallel_requests": team.MaxParallelRequests, "budget_duration": team.BudgetDuration, "finer": team.Finer,
		"metadata": team.Metadata, "status": team.Status, "status_reason": team.StatusReason,
		"gate_generation": team.GateGeneration,
		"created_at":      team.CreatedAt, "updated_at": team.UpdatedAt, "deleted_at": team.DeletedAt,
	}
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
		set (`+teamColumns+`) = row(@team_id, @team_alias, @models, @max_budget_nano_usd, @rpm_limit, @tpm_limit,
			@max_parallel_requests, @budget_duration, @finer, @metadata, @status, @status_reason, @gate_generation,
			@created_at, @updated_at, @deleted_at)
		where team_id = @team_id`, teamArgs(team))
	if err != nil {
		return fmt.Errorf("update team: %w", err)
	}
	return nil
}
