package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// writeOperation keeps what somebody did. Nil: nobody did anything.
func writeOperation(ctx context.Context, tx pgx.Tx, op *billing.Operation) error {
	if op == nil {
		return nil
	}
	_, err := tx.Exec(ctx, `
		insert into billing.operations (operation_id, action, team_id, actor, reason, details, created_at)
		values (@id, @action, @team_id, @actor, @reason, @details, @now)`,
		pgx.StrictNamedArgs{
			"id": op.OperationID, "action": op.Action, "team_id": op.TeamID, "actor": op.Actor, "reason": op.Reason,
			"details": op.Details, "now": op.CreatedAt,
		})
	if err != nil {
		return fmt.Errorf("keep operation: %w", err)
	}
	return nil
}

// Operations lists what people did, newest first.
func (s *Store) Operations(ctx context.Context, q billing.HistoryQuery) ([]billing.Operation, error) {
	rows, _ := s.db.Query(ctx, `
		select operation_id, action, team_id, actor, reason, details, created_at
		from billing.operations
		where (@team_id = '' or team_id = @team_id) and (@action = '' or action = @action)
			and (@before = '' or operation_id < @before)
		order by operation_id desc
		limit @limit`,
		pgx.StrictNamedArgs{"team_id": q.TeamID, "action": q.Action, "before": q.Before, "limit": q.Limit})
	return collect[billing.Operation](rows, "list operations")
}

// Transitions lists changes of gates, newest first.
func (s *Store) Transitions(ctx context.Context, q billing.HistoryQuery) ([]billing.Transition, error) {
	rows, _ := s.db.Query(ctx, `
		select transition_id, team_id, from_state, to_state, cause, reason, shadow_nano_usd, created_at
		from billing.gate_transitions
		where (@team_id = '' or team_id = @team_id) and (@before = '' or transition_id < @before)
		order by transition_id desc
		limit @limit`,
		pgx.StrictNamedArgs{"team_id": q.TeamID, "before": q.Before, "limit": q.Limit})
	return collect[billing.Transition](rows, "list transitions")
}

// reconciliationColumns are the fields of billing.Reconciliation.
const reconciliationColumns = `reconciliation_id, team_id, lease_token, sink_balance_nano_usd, sink_usage_nano_usd,
	expected_balance_nano_usd, expected_usage_nano_usd, posted_nano_usd, unconfirmed_nano_usd, drift_nano_usd,
	usage_drift_nano_usd, class, fixed, alarm, charge_ids, detail, shadow_before_nano_usd, shadow_after_nano_usd,
	observed_at, created_at`

// Reconciliations lists reconciliations, newest first.
func (s *Store) Reconciliations(ctx context.Context, q billing.HistoryQuery) ([]billing.Reconciliation, error) {
	rows, _ := s.db.Query(ctx, `
		select `+reconciliationColumns+`
		from billing.reconciliations
		where (@team_id = '' or team_id = @team_id) and (@before = '' or reconciliation_id < @before)
			and (not @only_faults or not fixed)
		order by reconciliation_id desc
		limit @limit`,
		pgx.StrictNamedArgs{"team_id": q.TeamID, "before": q.Before, "limit": q.Limit, "only_faults": q.OnlyFaults})
	return collect[billing.Reconciliation](rows, "list reconciliations")
}

// topUpColumns are the fields of billing.TopUp, of a table named t.
const topUpColumns = `t.top_up_id, t.team_id, t.amount_nano_usd, t.state, t.attempts, t.last_error, t.created_at, t.first_sent_at,
	t.due_at, t.settled_at, t.lease_token, t.recorded_token, t.lease_worker, t.lease_until, t.invoice_id`

// TopUps lists top-ups, newest first.
func (s *Store) TopUps(ctx context.Context, q billing.HistoryQuery) ([]billing.TopUp, error) {
	rows, _ := s.db.Query(ctx, `
		select `+topUpColumns+`
		from billing.top_ups t
		where (@team_id = '' or t.team_id = @team_id) and (@before = '' or t.top_up_id < @before)
		order by t.top_up_id desc
		limit @limit`,
		pgx.StrictNamedArgs{"team_id": q.TeamID, "before": q.Before, "limit": q.Limit})
	return collect[billing.TopUp](rows, "list top-ups")
}

// collect reads all rows into structs, by the names of the columns.
func collect[T any](rows pgx.Rows, doing string) ([]T, error) {
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return list, nil
}
