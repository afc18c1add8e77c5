package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// writeBalances writes locked balances back. A gate of a new generation becomes
// due to be announced.
func writeBalances(ctx context.Context, tx pgx.Tx, balances []billing.Balance, now time.Time) error {
	if len(balances) == 0 {
		return nil
	}
	n := len(balances)
	teams, states, reasons, bases := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	billed, charged, carried, posted := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	granted, next, gens, drifts := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	unlimited, changed, grace := make([]bool, n), make([]*time.Time, n), make([]*time.Time, n)
	for i, b := range balances {
		teams[i], states[i], reasons[i], bases[i] = b.TeamID, string(b.State), b.Reason, string(b.Basis)
		billed[i], charged[i], carried[i] = int64(b.BilledNanoUSD), int64(b.ChargedNanoUSD), int64(b.CarriedNanoUSD)
		posted[i], granted[i], drifts[i] = int64(b.PostedNanoUSD), int64(b.GrantedNanoUSD), int64(b.OpenDriftNanoUSD)
		next[i], gens[i], unlimited[i], changed[i], grace[i] = b.NextChargeSeq, b.Generation, b.Unlimited, b.ChangedAt, b.GraceUntil
	}
	_, err := tx.Exec(ctx, `
		update billing.balances b
		set billed_nano_usd = n.billed, charged_nano_usd = n.charged, carried_nano_usd = n.carried,
			posted_nano_usd = n.posted, granted_nano_usd = n.granted, next_charge_seq = n.next, open_drift_nano_usd = n.drift,
			gate_state = n.state, gate_reason = n.reason, gate_basis = n.basis, gate_unlimited = n.unlimited,
			gate_changed_at = n.changed, grace_until = n.grace, gate_generation = n.generation,
			announce_due_at = case when n.generation > b.gate_generation then @now else b.announce_due_at end,
			announce_attempts = case when n.generation > b.gate_generation then 0 else b.announce_attempts end
		from unnest(@teams::text[], @billed::bigint[], @charged::bigint[], @carried::bigint[], @posted::bigint[],
			@granted::bigint[], @next::bigint[], @drifts::bigint[], @states::text[], @reasons::text[], @bases::text[],
			@unlimited::boolean[], @changed::timestamptz[], @grace::timestamptz[], @generations::bigint[])
			as n (team_id, billed, charged, carried, posted, granted, next, drift, state, reason, basis, unlimited,
				changed, grace, generation)
		where b.team_id = n.team_id`,
		pgx.StrictNamedArgs{
			"teams": teams, "billed": billed, "charged": charged, "carried": carried, "posted": posted, "granted": granted,
			"next": next, "drifts": drifts, "states": states, "reasons": reasons, "bases": bases, "unlimited": unlimited,
			"changed": changed, "grace": grace, "generations": gens, "now": now,
		})
	if err != nil {
		return fmt.Errorf("write balances: %w", err)
	}
	return nil
}

func writeTransitions(ctx context.Context, tx pgx.Tx, list []billing.Transition) error {
	var batch pgx.Batch
	for _, t := range list {
		batch.Queue(`
			insert into billing.gate_transitions (transition_id, team_id, from_state, to_state, cause, reason, shadow_nano_usd, created_at)
			values (@id, @team_id, @from, @to, @cause, @reason, @shadow, @now)`,
			pgx.StrictNamedArgs{
				"id": t.TransitionID, "team_id": t.TeamID, "from": t.FromState, "to": t.ToState, "cause": t.Cause,
				"reason": t.Reason, "shadow": int64(t.ShadowNanoUSD), "now": t.CreatedAt,
			})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write transitions: %w", err)
	}
	return nil
}

func writeGrants(ctx context.Context, tx pgx.Tx, list []billing.Grant) error {
	var batch pgx.Batch
	for _, g := range list {
		batch.Queue(`
			insert into billing.grants (grant_id, team_id, kind, amount_nano_usd, reconciliation_id, created_at)
			values (@id, @team_id, @kind, @amount, @reconciliation_id, @now)`,
			pgx.StrictNamedArgs{
				"id": g.GrantID, "team_id": g.TeamID, "kind": g.Kind, "amount": int64(g.AmountNanoUSD),
				"reconciliation_id": g.ReconciliationID, "now": g.CreatedAt,
			})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write grants: %w", err)
	}
	return nil
}

// MoveGate locks a team, has move change its gate, and writes what came of it.
func (s *Store) MoveGate(ctx context.Context, teamID string, makeKnown bool, op *billing.Operation, move func(*billing.Balance) (billing.Transition, bool)) (billing.Balance, error) {
	var b billing.Balance
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		if makeKnown {
			if _, err := lockBalances(ctx, tx, []string{teamID}); err != nil {
				return err
			}
		}
		var err error
		if b, err = lockBalance(ctx, tx, teamID); err != nil {
			return err
		}
		t, changed := move(&b)
		if err := writeBalances(ctx, tx, []billing.Balance{b}, t.CreatedAt); err != nil {
			return err
		}
		if changed {
			if err := writeTransitions(ctx, tx, []billing.Transition{t}); err != nil {
				return err
			}
		}
		return writeOperation(ctx, tx, op)
	})
	return b, err
}

// DueGates lists teams whose gate disagrees with their balance or the time.
func (s *Store) DueGates(ctx context.Context, now time.Time, overdraft int64) ([]string, error) {
	rows, _ := s.db.Query(ctx, `
		select team_id
		from billing.balances
		where gate_state in ('trial', 'active') and shadow_nano_usd <= 0 and not gate_unlimited
			or gate_state = 'grace' and (grace_until <= @now or shadow_nano_usd > 0 or shadow_nano_usd <= -@overdraft::bigint or gate_unlimited)
			or gate_state = 'exhausted' and (shadow_nano_usd > 0 or gate_unlimited)
		order by team_id
		limit 1000`,
		pgx.StrictNamedArgs{"now": now, "overdraft": overdraft})
	teams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("find gates to move: %w", err)
	}
	return teams, nil
}

// DueAnnouncements takes gates that are due for as long as until.
func (s *Store) DueAnnouncements(ctx context.Context, now, until time.Time, limit int) ([]billing.Announcement, error) {
	type due struct {
		TeamID           string
		AnnounceAttempts int
		billing.Gate
	}
	rows, _ := s.db.Query(ctx, `
		update billing.balances b set announce_due_at = @until
		from (
			select team_id from billing.balances
			where announce_due_at <= @now
			order by announce_due_at
			limit @limit
			for update skip locked
		) due
		where b.team_id = due.team_id
		returning b.team_id, b.announce_attempts, b.gate_state, b.gate_reason, b.gate_basis, b.gate_unlimited,
			b.gate_changed_at, b.grace_until, b.gate_generation, b.announced_generation, b.announce_error`,
		pgx.StrictNamedArgs{"now": now, "until": until, "limit": limit})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[due])
	if err != nil {
		return nil, fmt.Errorf("take announcements: %w", err)
	}
	out := make([]billing.Announcement, 0, len(list))
	for _, d := range list {
		out = append(out, billing.Announcement{TeamID: d.TeamID, Gate: d.Gate, Generation: d.Generation, Attempts: d.AnnounceAttempts})
	}
	return out, nil
}

// Announced records that keysvc has heard of a generation. A newer one keeps
// its own due time.
func (s *Store) Announced(ctx context.Context, a billing.Announcement, again time.Time, note string) error {
	return s.answered(ctx, `
		update billing.balances
		set announced_generation = greatest(announced_generation, @generation),
			announce_due_at = case when gate_generation = @generation then @again else announce_due_at end,
			announce_attempts = 0, announce_error = @note
		where team_id = @team_id`, a, again, note)
}

// AnnouncedBefore counts a gate on from a generation that keysvc has heard of, if it
// is behind it.
func (s *Store) AnnouncedBefore(ctx context.Context, teamID string, generation int64, now time.Time) error {
	_, err := s.db.Exec(ctx, `
		update billing.balances
		set gate_generation = @generation + 1, announce_due_at = @now
		where team_id = @team_id and gate_generation < @generation`,
		pgx.StrictNamedArgs{"team_id": teamID, "generation": generation, "now": now})
	if err != nil {
		return fmt.Errorf("count the gate of %s on: %w", teamID, err)
	}
	return nil
}

// AnnounceFailed records why keysvc has not heard of a generation.
func (s *Store) AnnounceFailed(ctx context.Context, a billing.Announcement, again time.Time, note string) error {
	return s.answered(ctx, `
		update billing.balances
		set announce_due_at = case when gate_generation = @generation then @again else announce_due_at end,
			announce_attempts = announce_attempts + 1, announce_error = @note
		where team_id = @team_id`, a, again, note)
}

func (s *Store) answered(ctx context.Context, sql string, a billing.Announcement, again time.Time, note string) error {
	tag, err := s.db.Exec(ctx, sql,
		pgx.StrictNamedArgs{"team_id": a.TeamID, "generation": a.Generation, "again": again, "note": note})
	switch {
	case err != nil:
		return fmt.Errorf("record announcement: %w", err)
	case tag.RowsAffected() == 0:
		return fault.Errorf(fault.NotFound, "team %s is not known to billing", a.TeamID)
	}
	return nil
}
