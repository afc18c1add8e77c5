package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Graces implements key.Tx.
func (t tx) Graces(ctx context.Context, keyID string, now time.Time) ([]time.Time, error) {
	rows, _ := t.Query(ctx, `
		select ends_at
		from keys.old_secrets
		where key_id = @key_id and ends_at > @now
		order by rotated_at desc`,
		pgx.StrictNamedArgs{"key_id": keyID, "now": now})
	ends, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return nil, fmt.Errorf("read graces: %w", err)
	}
	return ends, nil
}

// KeepOldSecret implements key.Tx.
func (t tx) KeepOldSecret(ctx context.Context, s key.OldSecret, now time.Time) error {
	_, err := t.Exec(ctx, `
		insert into keys.old_secrets (token, key_id, rotated_at, ends_at, announced)
		values (@token, @key_id, @now::timestamptz, @ends_at::timestamptz, @ends_at::timestamptz <= @now::timestamptz)`,
		pgx.StrictNamedArgs{"token": s.Token, "key_id": s.KeyID, "ends_at": s.EndsAt, "now": now})
	if err != nil {
		return fmt.Errorf("keep old secret: %w", err)
	}
	return nil
}

// EndOldSecrets implements key.Tx.
func (t tx) EndOldSecrets(ctx context.Context, keyID string, now time.Time) error {
	_, err := t.Exec(ctx, `
		update keys.old_secrets set ends_at = @now, announced = true
		where key_id = @key_id and ends_at > @now`,
		pgx.StrictNamedArgs{"key_id": keyID, "now": now})
	if err != nil {
		return fmt.Errorf("end old secrets: %w", err)
	}
	return nil
}

// TakeExpired implements key.Tx.
func (t tx) TakeExpired(ctx context.Context, now time.Time, limit int) ([]key.Key, error) {
	rows, _ := t.Query(ctx, `
		update keys.keys k
		set expiry_announced = true
		where k.key_id in (
			select key_id from keys.keys
			where expires_at is not null and revoked_at is null and not expiry_announced and expires_at <= @now
			order by expires_at
			limit @limit
			for update skip locked)
		returning `+keyColumns,
		pgx.StrictNamedArgs{"now": now, "limit": limit})
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[key.Key])
	if err != nil {
		return nil, fmt.Errorf("take expired keys: %w", err)
	}
	return keys, nil
}

// TakeEndedSecrets implements key.Tx.
func (t tx) TakeEndedSecrets(ctx context.Context, now time.Time, limit int) ([]key.Key, error) {
	rows, _ := t.Query(ctx, `
		with ended as (
			update keys.old_secrets
			set announced = true
			where token in (
				select token from keys.old_secrets
				where not announced and ends_at <= @now
				order by ends_at
				limit @limit
				for update skip locked)
			returning key_id
		)
		select `+keyColumns+`
		from keys.keys k
		where k.key_id in (select key_id from ended)`,
		pgx.StrictNamedArgs{"now": now, "limit": limit})
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByName[key.Key])
	if err != nil {
		return nil, fmt.Errorf("take ended secrets: %w", err)
	}
	return keys, nil
}
