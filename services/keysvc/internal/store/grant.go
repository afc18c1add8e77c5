package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// grantRow is a key, its team (all nil when it has none) and the revision, as
// one statement and so one snapshot sees them.
type grantRow struct {
	Revision        int64
	SecretExpiresAt *time.Time
	key.Key
	TeamAlias               *string
	TeamModels              []string
	TeamMaxBudgetNanoUSD    *money.NanoUSD
	TeamRPMLimit            *int64
	TeamTPMLimit            *int64
	TeamMaxParallelRequests *int64
	TeamBudgetDuration      *string
	TeamFiner               *key.Finer
	TeamMetadata            json.RawMessage
	TeamStatus              *key.Status
	TeamStatusReason        *string
	TeamCreatedAt           *time.Time
	TeamUpdatedAt           *time.Time
	TeamDeletedAt           *time.Time
}

// Grant implements key.Store, in one round trip: it is on the way of requests.
func (s *Store) Grant(ctx context.Context, token string, now time.Time) (key.Grant, error) {
	var g key.Grant
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select r.value as revision, s.secret_expires_at, `+keyColumns+`,
				t.team_alias, t.models as team_models, t.max_budget_nano_usd as team_max_budget_nano_usd,
				t.rpm_limit as team_rpm_limit, t.tpm_limit as team_tpm_limit,
				t.max_parallel_requests as team_max_parallel_requests,
				t.budget_duration as team_budget_duration, t.finer as team_finer, t.metadata as team_metadata,
				t.status as team_status, t.status_reason as team_status_reason,
				t.created_at as team_created_at, t.updated_at as team_updated_at,
				t.deleted_at as team_deleted_at
			from (
				select key_id, null::timestamptz as secret_expires_at from keys.keys where token = @token
				union all
				select key_id, ends_at from keys.old_secrets where token = @token and ends_at > @now
			) s
			join keys.keys k on k.key_id = s.key_id
			cross join keys.revision r
			left join keys.teams t on t.team_id = k.team_id`,
			pgx.StrictNamedArgs{"token": token, "now": now})
		row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[grantRow])
		if err != nil {
			return found("find grant", err)
		}
		g = key.Grant{Key: row.Key, Team: row.team(), Revision: row.Revision, SecretExpiresAt: row.SecretExpiresAt}
		return nil
	})
	return g, err
}

func (r grantRow) team() *key.Team {
	if r.TeamStatus == nil {
		return nil
	}
	return &key.Team{
		TeamID: r.TeamID, TeamAlias: *r.TeamAlias, Models: r.TeamModels,
		Limits: key.Limits{
			MaxBudgetNanoUSD: r.TeamMaxBudgetNanoUSD, RPMLimit: r.TeamRPMLimit, TPMLimit: r.TeamTPMLimit,
			MaxParallelRequests: r.TeamMaxParallelRequests, BudgetDuration: *r.TeamBudgetDuration, Finer: *r.TeamFiner,
		},
		Metadata: r.TeamMetadata, Status: *r.TeamStatus, StatusReason: *r.TeamStatusReason,
		CreatedAt: *r.TeamCreatedAt, UpdatedAt: *r.TeamUpdatedAt, DeletedAt: r.TeamDeletedAt,
	}
}
