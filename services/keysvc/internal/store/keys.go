package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// keyColumns are the columns of keys.keys k that fill a key.Key.
const keyColumns = `k.key_id, k.token, k.key_name, k.key_alias, coalesce(k.team_id, '') as team_id, k.user_id,
	k.models, k.max_budget_nano_usd, k.rpm_limit, k.tpm_limit, k.max_parallel_requests, k.budget_duration,
	k.metadata, k.tags, k.duration, k.expires_at, k.blocked, k.revoked_at, k.idempotency_key,
	k.created_at, k.updated_at`

// Key implements key.Store.
func (s *Store) Key(ctx context.Context, ref string) (key.Key, error) {
	var k key.Key
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select `+keyColumns+`
			from keys.keys k
			where k.key_id = @ref or k.token = @ref or k.key_alias = @ref and k.key_alias <> ''
			order by (k.key_id = @ref) desc, (k.token = @ref) desc, (k.revoked_at is null) desc, k.key_id desc
			limit 1`,
			pgx.StrictNamedArgs{"ref": ref})
		var err error
		k, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[key.Key])
		return found("find key", err)
	})
	return k, err
}

// Keys implements key.Store. The conditions are written only when they filter,
// so that each mix of filters gets a plan with the index that suits it.
func (s *Store) Keys(ctx context.Context, f key.Filter) ([]key.Key, error) {
	where, args := []string{"true"}, pgx.StrictNamedArgs{"limit": f.Limit}
	if f.TeamID != "" {
		where, args["team_id"] = append(where, "k.team_id = @team_id"), f.TeamID
	}
	if f.UserID != "" {
		where, args["user_id"] = append(where, "k.user_id = @user_id and k.user_id <> ''"), f.UserID
	}
	if f.KeyAlias != "" {
		where, args["key_alias"] = append(where, "k.key_alias = @key_alias and k.key_alias <> ''"), f.KeyAlias
	}
	if f.Before != "" {
		where, args["before"] = append(where, "k.key_id < @before"), f.Before
	}
	if !f.UsableAt.IsZero() {
		where = append(where, "k.revoked_at is null and (k.expires_at is null or k.expires_at > @usable_at)")
		args["usable_at"] = f.UsableAt
	}
	var keys []key.Key
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select `+keyColumns+`
			from keys.keys k
			where `+strings.Join(where, " and ")+`
			order by k.key_id desc
			limit @limit`, args)
		var err error
		if keys, err = pgx.CollectRows(rows, pgx.RowToStructByName[key.Key]); err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		return nil
	})
	return keys, err
}

// LockSession implements key.Tx. Sessions whose hashes collide only wait for
// each other.
func (t tx) LockSession(ctx context.Context, userID string) error {
	_, err := t.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('keys.session:' || @user_id::text, 0))`,
		pgx.StrictNamedArgs{"user_id": userID})
	if err != nil {
		return fmt.Errorf("lock session: %w", err)
	}
	return nil
}

// LockKeys implements key.Tx.
func (t tx) LockKeys(ctx context.Context, s key.Selection) ([]key.Key, error) {
	rows, _ := t.Query(ctx, `
		select `+keyColumns+`
		from keys.keys k
		where k.key_id in (
			select key_id from keys.keys where key_id = any(@key_ids::text[])
			union
			select key_id from keys.keys where token = any(@tokens::text[])
			union
			(select distinct on (key_alias) key_id from keys.keys
				where key_alias = any(@key_aliases::text[]) and key_alias <> ''
				order by key_alias, (revoked_at is null) desc, key_id desc)
			union
			select key_id from keys.keys where user_id = @user_id and user_id <> '' and revoked_at is null
			union
			select key_id from keys.keys where team_id = @team_id and revoked_at is null)
		order by k.key_id
		for update of k`,
		pgx.StrictNamedArgs{
			"key_ids": s.KeyIDs, "tokens": s.Tokens, "key_aliases": s.KeyAliases,
			"user_id": s.UserID, "team_id": s.TeamID,
		})
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[key.Key])
	if err != nil {
		return nil, fmt.Errorf("lock keys: %w", err)
	}
	return keys, nil
}

// Exists implements key.Tx.
func (t tx) Exists(ctx context.Context, userID, teamID string) (bool, error) {
	var exists bool
	err := t.QueryRow(ctx, `
		select exists (select from keys.keys where user_id = @user_id and user_id <> '')
			or exists (select from keys.teams where team_id = @team_id)`,
		pgx.StrictNamedArgs{"user_id": userID, "team_id": teamID}).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for session and team: %w", err)
	}
	return exists, nil
}

// InsertKey implements key.Tx.
func (t tx) InsertKey(ctx context.Context, k key.Key) error {
	_, err := t.Exec(ctx, `
		insert into keys.keys (
			key_id, token, key_name, key_alias, team_id, user_id,
			models, max_budget_nano_usd, rpm_limit, tpm_limit, max_parallel_requests, budget_duration,
			metadata, tags, duration, expires_at, blocked, revoked_at, idempotency_key,
			created_at, updated_at)
		values (
			@key_id, @token, @key_name, @key_alias, nullif(@team_id, ''), @user_id,
			@models, @max_budget_nano_usd, @rpm_limit, @tpm_limit, @max_parallel_requests, @budget_duration,
			@metadata, @tags, @duration, @expires_at, @blocked, @revoked_at, @idempotency_key,
			@created_at, @updated_at)`,
		pgx.StrictNamedArgs{
			"key_id": k.KeyID, "token": k.Token, "key_name": k.KeyName, "key_alias": k.KeyAlias,
			"team_id": k.TeamID, "user_id": k.UserID, "models": k.Models,
			"max_budget_nano_usd": k.MaxBudgetNanoUSD, "rpm_limit": k.RPMLimit, "tpm_limit": k.TPMLimit,
			"max_parallel_requests": k.MaxParallelRequests, "budget_duration": k.BudgetDuration,
			"metadata": k.Metadata, "tags": k.Tags, "duration": k.Duration, "expires_at": k.ExpiresAt,
			"blocked": k.Blocked, "revoked_at": k.RevokedAt, "idempotency_key": k.IdempotencyKey,
			"created_at": k.CreatedAt, "updated_at": k.UpdatedAt,
		})
	switch {
	case err == nil:
		return nil
	case pg.Constraint(err) == "keys_live_alias_key":
		return fmt.Errorf("insert key: %w", key.ErrAliasTaken)
	case pg.Constraint(err) == "keys_team_id_fkey":
		return fmt.Errorf("insert key: %w", key.ErrNoTeam)
	}
	return fmt.Errorf("insert key: %w", err)
}

// UpdateKeys implements key.Tx.
func (t tx) UpdateKeys(ctx context.Context, keys []key.Key) error {
	batch := &pgx.Batch{}
	for _, k := range keys {
		batch.Queue(`
			update keys.keys
			set token = @token, key_name = @key_name, blocked = @blocked, revoked_at = @revoked_at, updated_at = @updated_at
			where key_id = @key_id`,
			pgx.StrictNamedArgs{
				"key_id": k.KeyID, "token": k.Token, "key_name": k.KeyName,
				"blocked": k.Blocked, "revoked_at": k.RevokedAt, "updated_at": k.UpdatedAt,
			})
	}
	return t.send(ctx, "update keys", batch)
}

// send runs a batch, if there is anything in it.
func (t tx) send(ctx context.Context, what string, batch *pgx.Batch) error {
	if batch.Len() == 0 {
		return nil
	}
	if err := t.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// found wraps the error of a query for one row.
func found(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%s: %w", what, key.ErrNotFound)
	}
	return fmt.Errorf("%s: %w", what, err)
}
