package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Charges lists charges, newest first.
func (s *Store) Charges(ctx context.Context, q billing.ChargeQuery) ([]billing.Charge, error) {
	rows, _ := s.db.Query(ctx, `
		select `+chargeColumns+`
		from billing.charges c
		where (@team_id = '' or c.team_id = @team_id)
			and (@state = '' or c.state = @state)
			and (@before = '' or c.charge_id < @before)
		order by c.charge_id desc
		limit @limit`,
		pgx.StrictNamedArgs{"team_id": q.TeamID, "state": string(q.State), "before": q.Before, "limit": q.Limit})
	charges, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Charge])
	if err != nil {
		return nil, fmt.Errorf("list charges: %w", err)
	}
	return charges, nil
}

// Events lists events, newest first.
func (s *Store) Events(ctx context.Context, q billing.EventQuery) ([]billing.Event, error) {
	var before *time.Time
	if q.BeforeKey != "" {
		before = &q.BeforeTime
	}
	rows, _ := s.db.Query(ctx, `
		select `+eventColumns+`
		from billing.billing_events
		where (@team_id = '' or organization_id = @team_id)
			and (@key = '' or idempotency_key = @key)
			and (@before_time::timestamptz is null or (occurred_at, idempotency_key) < (@before_time, @before_key))
		order by occurred_at desc, idempotency_key desc
		limit @limit`,
		pgx.StrictNamedArgs{
			"team_id": q.TeamID, "key": q.IdempotencyKey, "before_time": before, "before_key": q.BeforeKey, "limit": q.Limit,
		})
	events, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Event])
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return events, nil
}
