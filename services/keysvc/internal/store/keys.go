package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// keyColumns are the columns of keys.keys k that fill a key.Key.
const keyColumns = `k.key_id, k.token, k.key_name, k.key_alias, coalesce(k.team_id, '') as team_id, k.user_id,
	k.models, k.max_budget_nano_usd, k.rpm_limit, k.tpm_limit, k.max_parallel_requests, k.budget_duration, k.finer,
	k.metadata, k.tags, k.aliases, k.allowed_cidrs, k.allowed_routes, k.duration, k.expires_at, k.blocked, k.revoked_at,
	k.idempotency_key, k.rotated_at, k.rotation_key, k.created_at, k.updated_at`

// Key implements key.Store.
func (s *Store) Key(ctx context.Context, ref string) (key.Key, error) {
	var k key.Key
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select `+keyColumns+`
			from keys.keys k
			where k.key_id = @ref or k.token = @ref or k.key_alias = @ref and k.key_alias <> ''
				or k.key_id = (select key_id from keys.old_secrets where token = @ref)
			order by (k.key_id = @ref) desc, (k.key_alias = @ref), (k.revoked_at is null) desc, k.key_id desc
			limit 1`,
			pgx.StrictNamedArgs{"ref": ref})
		var err error
		k, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[key.Key])
		return found("find key", err)
	})
	return k, err
}

// Hold implements key.Tx. Ids whose hashes collide only wait for each other.
func (t tx) Hold(ctx context.Context, h key.Hold) error {
	batch := &pgx.Batch{}
	lock := func(f, what, id string) {
		if id != "" {
			batch.Queue(`select `+f+`(hashtextextended(@what || @id::text, 0))`,
				pgx.StrictNamedArgs{"what": "keys." + what + ":", "id": id})
		}
	}
	team := "pg_advisory_xact_lock_shared"
	if h.Exclusive {
		team = "pg_advisory_xact_lock"
	}
	lock(team, "team", h.TeamID)
	lock("pg_advisory_xact_lock", "session", h.UserID)
	lock("pg_advisory_xact_lock", "idempotency", h.IdempotencyKey)
	return t.send(ctx, "hold", batch)
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
			select key_id from keys.old_secrets where token = any(@tokens::text[])
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

// LockRepeated implements key.Tx.
func (t tx) LockRepeated(ctx context.Context, userID, idempotencyKey string) (key.Key, error) {
	rows, _ := t.Query(ctx, `
		select `+keyColumns+`
		from keys.keys k
		where k.user_id = @user_id and k.idempotency_key = @idempotency_key and k.idempotency_key <> '' and k.revoked_at is null
		for update of k`,
		pgx.StrictNamedArgs{"user_id": userID, "idempotency_key": idempotencyKey})
	k, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[key.Key])
	return k, found("find repeated key", err)
}

// InsertKey implements key.Tx.
func (t tx) InsertKey(ctx context.Context, k key.Key) error {
	_, err := t.Exec(ctx, `
		insert into keys.keys (
			key_id, token, key_name, key_alias, team_id, user_id,
			models, max_budget_nano_usd, rpm_limit, tpm_limit, max_parallel_requests, budget_duration, finer,
			metadata, tags, aliases, allowed_cidrs, allowed_routes, duration, expires_at, blocked, revoked_at,
			idempotency_key, rotated_at, rotation_key, created_at, updated_at)
		values (
			@key_id, @token, @key_name, @key_alias, nullif(@team_id, ''), @user_id,
			@models, @max_budget_nano_usd, @rpm_limit, @tpm_limit, @max_parallel_requests, @budget_duration, @finer,
			@metadata, @tags, @aliases, @allowed_cidrs, @allowed_routes, @duration, @expires_at, @blocked, @revoked_at,
			@idempotency_key, @rotated_at, @rotation_key, @created_at, @updated_at)`, keyArgs(k))
	return refusal("insert key", err)
}

// UpdateKeys implements key.Tx. A life that is given anew will have an end that
// was not announced.
func (t tx) UpdateKeys(ctx context.Context, keys []key.Key) error {
	batch := &pgx.Batch{}
	for _, k := range keys {
		args := keyArgs(k)
		delete(args, "created_at")
		batch.Queue(`
			update keys.keys
			set token = @token, key_name = @key_name, key_alias = @key_alias, team_id = nullif(@team_id, ''), user_id = @user_id,
				models = @models, max_budget_nano_usd = @max_budget_nano_usd, rpm_limit = @rpm_limit, tpm_limit = @tpm_limit,
				max_parallel_requests = @max_parallel_requests, budget_duration = @budget_duration, finer = @finer,
				metadata = @metadata, tags = @tags, aliases = @aliases, allowed_cidrs = @allowed_cidrs,
				allowed_routes = @allowed_routes, duration = @duration, expires_at = @expires_at, blocked = @blocked,
				revoked_at = @revoked_at, idempotency_key = @idempotency_key, rotated_at = @rotated_at,
				rotation_key = @rotation_key, updated_at = @updated_at,
				expiry_announced = expiry_announced and expires_at is not distinct from @expires_at
			where key_id = @key_id`, args)
	}
	return refusal("update keys", t.send(ctx, "send", batch))
}

// keyArgs are all columns of a key by their names.
func keyArgs(k key.Key) pgx.StrictNamedArgs {
	return pgx.StrictNamedArgs{
		"key_id": k.KeyID, "token": k.Token, "key_name": k.KeyName, "key_alias": k.KeyAlias,
		"team_id": k.TeamID, "user_id": k.UserID, "models": k.Models,
		"max_budget_nano_usd": k.MaxBudgetNanoUSD, "rpm_limit": k.RPMLimit, "tpm_limit": k.TPMLimit,
		"max_parallel_requests": k.MaxParallelRequests, "budget_duration": k.BudgetDuration, "finer": k.Finer,
		"metadata": k.Metadata, "tags": k.Tags, "aliases": k.Aliases,
		"allowed_cidrs": k.AllowedCIDRs, "allowed_routes": k.AllowedRoutes,
		"duration": k.Duration, "expires_at": k.ExpiresAt, "blocked": k.Blocked, "revoked_at": k.RevokedAt,
		"idempotency_key": k.IdempotencyKey, "rotated_at": k.RotatedAt, "rotation_key": k.RotationKey,
		"created_at": k.CreatedAt, "updated_at": k.UpdatedAt,
	}
}

// refusal says which rule of the table stands in the way.
func refusal(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case pg.Constraint(err) == "keys_live_alias_key":
		err = key.ErrAliasTaken
	case pg.Constraint(err) == "keys_team_id_fkey":
		err = key.ErrNoTeam
	}
	return fmt.Errorf("%s: %w", what, err)
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
