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

// Lease hands out the oldest open charge of each team that has one due and none
// in flight. It goes by the queue of teams, so that its cost depends on what it
// hands out, not on how many teams and charges wait.
func (s *Store) Lease(ctx context.Context, q billing.LeaseQuery) ([]billing.Lease, error) {
	var leases []billing.Lease
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		leases = nil
		if err := endLapsed(ctx, tx, q.Now); err != nil {
			return err
		}
		for len(leases) < q.Max {
			want := q.Max - len(leases)
			teams, err := lockQueued(ctx, tx, q.Now, want)
			if err != nil || len(teams) == 0 {
				return err
			}
			taken, err := takeHeads(ctx, tx, teams, q)
			if err != nil {
				return err
			}
			leases = append(leases, taken...)
			if err := putOff(ctx, tx, teams, q.Now); err != nil || len(teams) < want {
				return err
			}
		}
		return nil
	})
	if pg.Constraint(err) == "charges_one_lease" {
		// An older charge was requeued while we looked.
		return nil, fault.Errorf(fault.Conflict, "a team's charges changed meanwhile; try again")
	}
	return leases, err
}

// endLapsed frees the teams of leases that ran out. Their outcome stays
// unrecorded until the charge is leased again, so that a late one still counts.
// It goes by team, the order in which everybody comes to the queue.
func endLapsed(ctx context.Context, tx pgx.Tx, now time.Time) error {
	rows, _ := tx.Query(ctx, `
		with lapsed as materialized (
			select charge_id, team_id from billing.charges
			where lease_until is not null and lease_until <= @now
			for update skip locked
		)
		select charge_id from lapsed order by team_id`,
		pgx.StrictNamedArgs{"now": now})
	lapsed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("find lapsed leases: %w", err)
	}
	var batch pgx.Batch
	for _, id := range lapsed {
		batch.Queue(`update billing.charges set lease_until = null, lease_worker = '' where charge_id = @id`, pgx.StrictNamedArgs{"id": id})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("end lapsed leases: %w", err)
	}
	return nil
}

// lockQueued locks teams that may have a charge due, the longest waiting first.
// Nothing that makes a charge of theirs due can be committed until we are done.
func lockQueued(ctx context.Context, tx pgx.Tx, now time.Time, most int) ([]string, error) {
	rows, _ := tx.Query(ctx, `
		select q.team_id from billing.charge_queue q
		where q.due_at <= @now
			and not exists (select from billing.pauses p where p.team_id in ('', q.team_id))
			and not exists (select from billing.balances b where b.team_id = q.team_id and b.reconcile_until > @now)
		order by q.due_at, q.team_id
		limit @most
		for update of q skip locked`,
		pgx.StrictNamedArgs{"now": now, "most": most})
	teams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("find teams with charges: %w", err)
	}
	return teams, nil
}

// takeHeads leases the oldest open charge of each team where it is due and
// nothing is in flight. A charge that somebody else holds is left to the next look:
// to wait for it here would be a deadlock with its settlement. What the state must
// be is said such that no planner reads all of charges_open for one of its rows.
func takeHeads(ctx context.Context, tx pgx.Tx, teams []string, q billing.LeaseQuery) ([]billing.Lease, error) {
	rows, _ := tx.Query(ctx, `
		with heads as (
			select h.charge_id from unnest(@teams::text[]) t (team_id)
			cross join lateral (
				select o.charge_id from billing.charges o
				where o.team_id = t.team_id and o.state in ('pending', 'ambiguous')
				order by o.seq limit 1
			) h
		)
		select `+chargeColumns+` from billing.charges c
		where c.charge_id = any(array(select charge_id from heads))
			and c.state not in ('posted', 'short', 'dead') and c.due_at <= @now and c.lease_until is null
			and not exists (
				select from billing.charges l where l.team_id = c.team_id and l.lease_until is not null
			)
		order by c.due_at, c.charge_id
		for update skip locked`,
		pgx.StrictNamedArgs{"teams": teams, "now": q.Now})
	charges, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Charge])
	if err != nil {
		return nil, fmt.Errorf("find charges to lease: %w", err)
	}
	leases := make([]billing.Lease, 0, len(charges))
	taken := make([]billing.Charge, 0, len(charges))
	for _, c := range charges {
		c = c.Take(q)
		taken = append(taken, c)
		leases = append(leases, billing.Lease{Charge: c, Token: c.LeaseToken, ExpiresAt: q.Until})
	}
	return leases, writeAttempts(ctx, tx, taken)
}

// lookAgain is when a team is looked at again whose charge is due and was held by
// somebody else.
const lookAgain = time.Second

// putOff puts the queue right for teams that were looked at. One without an open
// charge leaves it.
func putOff(ctx context.Context, tx pgx.Tx, teams []string, now time.Time) error {
	_, err := tx.Exec(ctx, `
		with next as (
			select t.team_id, coalesce(
				(select l.lease_until from billing.charges l where l.team_id = t.team_id and l.lease_until is not null),
				(select greatest(o.due_at, @again) from billing.charges o
					where o.team_id = t.team_id and o.state in ('pending', 'ambiguous') order by o.seq limit 1)
			) as due_at
			from unnest(@teams::text[]) t (team_id)
		), gone as (
			delete from billing.charge_queue q using next n where q.team_id = n.team_id and n.due_at is null
		)
		update billing.charge_queue q set due_at = n.due_at
		from next n where q.team_id = n.team_id and n.due_at is not null`,
		pgx.StrictNamedArgs{"teams": teams, "again": now.Add(lookAgain)})
	if err != nil {
		return fmt.Errorf("put teams off: %w", err)
	}
	return nil
}
