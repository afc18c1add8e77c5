package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// chargeColumns are the fields of billing.Charge, of a table named c.
const chargeColumns = `c.charge_id, c.team_id, c.seq, c.amount_nano_usd, c.carried_nano_usd, c.event_count, c.checksum,
	c.state, c.unsure, c.attempts, c.proof, c.last_error, c.frozen_at, c.first_sent_at, c.due_at, c.settled_at,
	c.shortfall_nano_usd, c.lease_token, c.recorded_token, c.lease_worker, c.lease_until`

// Lease hands out the oldest open charge of each team that has one due and none
// in flight. A lease that ran out without an outcome may have been applied, so
// its charge becomes ambiguous when it is leased again.
func (s *Store) Lease(ctx context.Context, q billing.LeaseQuery) ([]billing.Lease, error) {
	var leases []billing.Lease
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			update billing.charges c set lease_until = null, lease_worker = ''
			from (
				select charge_id from billing.charges
				where lease_until is not null and lease_until <= @now
				order by charge_id for update skip locked
			) lapsed
			where c.charge_id = lapsed.charge_id`,
			pgx.StrictNamedArgs{"now": q.Now})
		if err != nil {
			return fmt.Errorf("end lapsed leases: %w", err)
		}
		leases, err = leaseDue(ctx, tx, q)
		return err
	})
	if pg.Constraint(err) == "charges_one_lease" {
		// An older charge was requeued while we looked.
		return nil, fault.Errorf(fault.Conflict, "a team's charges changed meanwhile; try again")
	}
	return leases, err
}

// leaseDue walks the index of open charges from team to team, so that its cost
// depends on the teams with open charges, not on how many they have piled up.
func leaseDue(ctx context.Context, tx pgx.Tx, q billing.LeaseQuery) ([]billing.Lease, error) {
	rows, _ := tx.Query(ctx, `
		with recursive heads as (
			(
				select charge_id, team_id from billing.charges
				where state in ('pending', 'ambiguous')
				order by team_id, seq limit 1
			)
			union all
			select n.charge_id, n.team_id
			from heads h
			cross join lateral (
				select o.charge_id, o.team_id from billing.charges o
				where o.state in ('pending', 'ambiguous') and o.team_id > h.team_id
				order by o.team_id, o.seq limit 1
			) n
		), due as (
			select d.charge_id from billing.charges d
			where d.charge_id in (select charge_id from heads)
				and d.state in ('pending', 'ambiguous') and d.due_at <= @now and d.lease_until is null
				and not exists (
					select from billing.charges l where l.team_id = d.team_id and l.lease_until is not null
				)
			order by d.due_at, d.charge_id
			limit @max
			for update skip locked
		)
		update billing.charges c
		set unsure = c.unsure or c.lease_token > c.recorded_token,
			state = case when c.unsure or c.lease_token > c.recorded_token then 'ambiguous' else c.state end,
			attempts = c.attempts + 1,
			first_sent_at = coalesce(c.first_sent_at, @now),
			lease_token = c.lease_token + 1,
			lease_worker = @worker,
			lease_until = @until
		from due
		where c.charge_id = due.charge_id
		returning `+chargeColumns,
		pgx.StrictNamedArgs{"now": q.Now, "max": q.Max, "worker": q.Worker, "until": q.Until})
	charges, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Charge])
	if err != nil {
		return nil, fmt.Errorf("lease charges: %w", err)
	}
	leases := make([]billing.Lease, 0, len(charges))
	for _, c := range charges {
		leases = append(leases, billing.Lease{Charge: c, Token: c.LeaseToken, ExpiresAt: q.Until})
	}
	return leases, nil
}

// Settle records the outcome of one attempt, and what the sink said.
func (s *Store) Settle(ctx context.Context, st billing.Settlement, now time.Time) (billing.Charge, error) {
	var settled billing.Charge
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, `select `+chargeColumns+` from billing.charges c where c.charge_id = @id for update`,
			pgx.StrictNamedArgs{"id": st.ChargeID})
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Charge])
		if err != nil {
			return fmt.Errorf("lock charge: %w", err)
		}
		if len(found) == 0 {
			return fault.Errorf(fault.NotFound, "charge %s not found", st.ChargeID)
		}
		next, posted, err := st.Apply(found[0], now)
		if err != nil {
			return err
		}
		settled = next
		if next.RecordedToken == found[0].RecordedToken {
			return nil // recorded before
		}
		if err := writeSettled(ctx, tx, next); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			update billing.balances
			set posted_nano_usd = posted_nano_usd + @posted,
				sink_balance_credits = coalesce(nullif(@sink_balance, ''), sink_balance_credits)
			where team_id = @team_id`,
			pgx.StrictNamedArgs{"team_id": next.TeamID, "posted": int64(posted), "sink_balance": st.SinkBalanceCredits})
		if err != nil {
			return fmt.Errorf("move balance: %w", err)
		}
		return nil
	})
	return settled, err
}

func writeSettled(ctx context.Context, tx pgx.Tx, c billing.Charge) error {
	_, err := tx.Exec(ctx, `
		update billing.charges
		set state = @state, unsure = @unsure, proof = @proof, last_error = @last_error, due_at = @due_at,
			settled_at = @settled_at, shortfall_nano_usd = @shortfall, recorded_token = @recorded_token,
			lease_worker = '', lease_until = null
		where charge_id = @charge_id`,
		pgx.StrictNamedArgs{
			"charge_id": c.ChargeID, "state": c.State, "unsure": c.Unsure, "proof": c.Proof, "last_error": c.LastError,
			"due_at": c.DueAt, "settled_at": c.SettledAt, "shortfall": int64(c.ShortfallNanoUSD),
			"recorded_token": c.RecordedToken,
		})
	if err != nil {
		return fmt.Errorf("settle charge: %w", err)
	}
	return nil
}

// Requeue makes the dead ones of the charges due at now. One that an attempt may
// have applied is ambiguous again.
func (s *Store) Requeue(ctx context.Context, chargeIDs []string, now time.Time) ([]billing.Charge, error) {
	rows, _ := s.db.Query(ctx, `
		update billing.charges c
		set state = case when c.unsure then 'ambiguous' else 'pending' end, due_at = @now
		where c.charge_id = any(@ids) and c.state = 'dead'
		returning `+chargeColumns,
		pgx.StrictNamedArgs{"ids": chargeIDs, "now": now})
	charges, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Charge])
	if err != nil {
		return nil, fmt.Errorf("requeue charges: %w", err)
	}
	return charges, nil
}
