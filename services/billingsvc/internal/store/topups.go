package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

const ruleColumns = `team_id, enabled, below_nano_usd, amount_nano_usd, max_per_month, declined_at, decline_reason`

// TopUpRule returns a team's rule; a disabled one when it has none.
func (s *Store) TopUpRule(ctx context.Context, teamID string) (billing.TopUpRule, error) {
	rows, _ := s.db.Query(ctx, `select `+ruleColumns+` from billing.top_up_rules where team_id = @team_id`,
		pgx.StrictNamedArgs{"team_id": teamID})
	list, err := collect[billing.TopUpRule](rows, "read top-up rule")
	if err != nil || len(list) == 0 {
		return billing.TopUpRule{TeamID: teamID}, err
	}
	return list[0], nil
}

// SetTopUpRule sets a team's rule and closes its breaker.
func (s *Store) SetTopUpRule(ctx context.Context, r billing.TopUpRule, op billing.Operation) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			insert into billing.top_up_rules (team_id, enabled, below_nano_usd, amount_nano_usd, max_per_month)
			values (@team_id, @enabled, @below, @amount, @max)
			on conflict (team_id) do update
			set enabled = @enabled, below_nano_usd = @below, amount_nano_usd = @amount, max_per_month = @max,
				declined_at = null, decline_reason = ''`,
			pgx.StrictNamedArgs{
				"team_id": r.TeamID, "enabled": r.Enabled, "below": int64(r.BelowNanoUSD), "amount": int64(r.AmountNanoUSD),
				"max": r.MaxPerMonth,
			})
		if err != nil {
			return fmt.Errorf("set top-up rule: %w", err)
		}
		return writeOperation(ctx, tx, &op)
	})
}

// OpenTopUps makes the top-ups that are due.
func (s *Store) OpenTopUps(ctx context.Context, now time.Time) error {
	rows, _ := s.db.Query(ctx, `
		select r.team_id
		from billing.top_up_rules r join billing.balances b using (team_id)
		where r.enabled and b.shadow_nano_usd < r.below_nano_usd
			and not exists (select from billing.top_ups t where t.team_id = r.team_id and t.state in ('pending', 'unknown'))
		order by r.team_id`)
	teams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find teams to top up: %w", err)
	}
	for _, team := range teams {
		if err := s.openTopUp(ctx, team, now); err != nil {
			return fmt.Errorf("open top-up: %w", err)
		}
	}
	return nil
}

// openTopUp decides for one team under its locks, and makes its top-up.
func (s *Store) openTopUp(ctx context.Context, teamID string, now time.Time) error {
	return pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		b, err := lockBalance(ctx, tx, teamID)
		if err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `select `+ruleColumns+` from billing.top_up_rules where team_id = @team_id for update`,
			pgx.StrictNamedArgs{"team_id": teamID})
		rule, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[billing.TopUpRule])
		if err != nil {
			return fmt.Errorf("lock rule: %w", err)
		}
		var t billing.TopUpTally
		err = tx.QueryRow(ctx, `
			select coalesce(bool_or(t.state in ('pending', 'unknown')), false),
				count(*) filter (where t.state not in ('declined', 'failed') and t.created_at >= @month),
				max(t.settled_at) filter (where t.state = 'succeeded'),
				(select reconciled_at from billing.balances where team_id = @team_id)
			from billing.top_ups t
			where t.team_id = @team_id`,
			pgx.StrictNamedArgs{"team_id": teamID, "month": billing.MonthOf(now)}).
			Scan(&t.Open, &t.ThisMonth, &t.LastSettledAt, &t.ReconciledAt)
		if err != nil {
			return fmt.Errorf("count top-ups: %w", err)
		}
		if !rule.Due(b, t, now) {
			return nil
		}
		u := rule.Open(now)
		_, err = tx.Exec(ctx, `
			insert into billing.top_ups (top_up_id, team_id, amount_nano_usd, state, created_at, due_at)
			values (@id, @team_id, @amount, @state, @now, @now)`,
			pgx.StrictNamedArgs{"id": u.TopUpID, "team_id": teamID, "amount": int64(u.AmountNanoUSD), "state": u.State, "now": now})
		return err
	})
}

// LeaseTopUps hands out top-ups that are due. One whose lease ran out may have
// been done.
func (s *Store) LeaseTopUps(ctx context.Context, q billing.LeaseQuery) ([]billing.TopUpLease, error) {
	rows, _ := s.db.Query(ctx, `
		update billing.top_ups t
		set state = case when t.lease_token > t.recorded_token then 'unknown' else t.state end,
			attempts = t.attempts + 1, first_sent_at = coalesce(t.first_sent_at, @now),
			lease_token = t.lease_token + 1, lease_worker = @worker, lease_until = @until
		from (
			select top_up_id from billing.top_ups
			where state in ('pending', 'unknown') and due_at <= @now and (lease_until is null or lease_until <= @now)
			order by due_at, top_up_id
			limit @max
			for update skip locked
		) due
		where t.top_up_id = due.top_up_id
		returning `+topUpColumns+`,
			array(select o.invoice_id from billing.top_ups o
				where o.team_id = t.team_id and o.top_up_id <> t.top_up_id and o.invoice_id <> ''
				order by o.created_at desc limit @counted) as counted`,
		pgx.StrictNamedArgs{"now": q.Now, "until": q.Until, "worker": q.Worker, "max": q.Max, "counted": countedInvoices})
	type leased struct {
		billing.TopUp
		Counted []string
	}
	list, err := collect[leased](rows, "lease top-ups")
	if err != nil {
		return nil, err
	}
	leases := make([]billing.TopUpLease, 0, len(list))
	for _, t := range list {
		leases = append(leases, billing.TopUpLease{TopUp: t.TopUp, Token: t.LeaseToken, ExpiresAt: q.Until, Counted: t.Counted})
	}
	return leases, nil
}

// countedInvoices bounds those that a worker is told. It looks at the sink only for
// invoices since the first attempt, before which one other can have been paid.
const countedInvoices = 10

// SettleTopUp records the outcome of one attempt.
func (s *Store) SettleTopUp(ctx context.Context, st billing.TopUpSettlement, now time.Time) (billing.TopUp, error) {
	var settled billing.TopUp
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		t, err := lockTopUp(ctx, tx, st.TopUpID)
		if err != nil {
			return err
		}
		if settled, err = st.Apply(t, now); err != nil || settled.RecordedToken == t.RecordedToken {
			return err
		}
		return writeTopUp(ctx, tx, settled, st.Trips(), st.Detail, now)
	})
	return settled, err
}

// ResolveTopUp settles a top-up by hand.
func (s *Store) ResolveTopUp(ctx context.Context, r billing.ResolveTopUp, op billing.Operation, now time.Time) (billing.TopUp, error) {
	var resolved billing.TopUp
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		t, err := lockTopUp(ctx, tx, r.TopUpID)
		if err != nil {
			return err
		}
		if resolved, err = r.Apply(t, now); err != nil || r.DryRun {
			return err
		}
		if err := writeTopUp(ctx, tx, resolved, false, "", now); err != nil {
			return err
		}
		op.TeamID = t.TeamID
		return writeOperation(ctx, tx, &op)
	})
	return resolved, err
}

func lockTopUp(ctx context.Context, tx pgx.Tx, id string) (billing.TopUp, error) {
	rows, _ := tx.Query(ctx, `select `+topUpColumns+` from billing.top_ups t where t.top_up_id = @id for update`, pgx.StrictNamedArgs{"id": id})
	t, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[billing.TopUp])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return t, fault.Errorf(fault.NotFound, "top-up %s not found", id)
	case err != nil:
		return t, fmt.Errorf("lock top-up: %w", err)
	}
	return t, nil
}

// writeTopUp writes a settled top-up, trips the breaker of its team if so, and makes
// that due: whatever happened, the sink's balance tells.
func writeTopUp(ctx context.Context, tx pgx.Tx, t billing.TopUp, trips bool, reason string, now time.Time) error {
	var batch pgx.Batch
	batch.Queue(`
		update billing.top_ups
		set state = @state, last_error = @last_error, due_at = @due_at, settled_at = @settled_at,
			lease_token = @lease_token, recorded_token = @recorded_token, lease_worker = '', lease_until = null,
			invoice_id = @invoice_id
		where top_up_id = @id`,
		pgx.StrictNamedArgs{
			"id": t.TopUpID, "state": t.State, "last_error": t.LastError, "due_at": t.DueAt, "settled_at": t.SettledAt,
			"lease_token": t.LeaseToken, "recorded_token": t.RecordedToken, "invoice_id": t.InvoiceID,
		})
	batch.Queue(`update billing.balances set reconcile_due_at = least(reconcile_due_at, @now) where team_id = @team_id`,
		pgx.StrictNamedArgs{"team_id": t.TeamID, "now": now})
	if trips {
		batch.Queue(`update billing.top_up_rules set declined_at = @now, decline_reason = @reason where team_id = @team_id`,
			pgx.StrictNamedArgs{"team_id": t.TeamID, "now": now, "reason": reason})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("settle top-up: %w", err)
	}
	return nil
}
