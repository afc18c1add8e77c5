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
	// Only what is asked for is in the statement, so that any plan of it can go by an
	// index: the outbox asks for the few in doubt in each pass.
	where, args := "true", pgx.StrictNamedArgs{"limit": q.Limit}
	for _, part := range []struct{ condition, name, value string }{
		{"c.team_id = @team_id", "team_id", q.TeamID}, {"c.state = @state", "state", string(q.State)}, {"c.charge_id < @before", "before", q.Before},
	} {
		if part.value != "" {
			where += " and " + part.condition
			args[part.name] = part.value
		}
	}
	rows, _ := s.db.Query(ctx, `
		select `+chargeColumns+`
		from billing.charges c
		where `+where+`
		order by c.charge_id desc
		limit @limit`, args)
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
