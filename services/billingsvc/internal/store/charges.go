package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// chargeColumns are the fields of billing.Charge, of a table named c.
const chargeColumns = `c.charge_id, c.team_id, c.seq, c.amount_nano_usd, c.carried_nano_usd, c.event_count, c.checksum,
	c.state, c.unsure, c.attempts, c.sent_attempts, c.sent_token, c.lease_marks, c.sent_device, c.sent_key, c.key_round, c.settled_in, c.proof, c.last_error, c.frozen_at, c.first_sent_at, c.due_at, c.settled_at,
	c.shortfall_nano_usd, c.lease_token, c.recorded_token, c.lease_worker, c.lease_until`

// MarkSent records that a leased charge is about to be sent, and under what.
func (s *Store) MarkSent(ctx context.Context, chargeID string, token int64, via billing.Via, now time.Time) (billing.Charge, error) {
	return s.leased(ctx, chargeID, token, func(c billing.Charge) (billing.Charge, error) { return c.MarkSent(via, now) })
}

// Renew prolongs a lease.
func (s *Store) Renew(ctx context.Context, chargeID string, token int64, until time.Time) error {
	_, err := s.leased(ctx, chargeID, token, func(c billing.Charge) (billing.Charge, error) { return c.Renew(until) })
	return err
}

// leased locks a charge that is leased under a token, changes and writes it.
func (s *Store) leased(ctx context.Context, chargeID string, token int64, change func(billing.Charge) (billing.Charge, error)) (billing.Charge, error) {
	var c billing.Charge
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		found, err := lockCharge(ctx, tx, chargeID)
		if err != nil {
			return err
		}
		if found.LeaseToken != token || found.RecordedToken >= token {
			return fault.Errorf(fault.Conflict, "charge %s is no longer leased to the caller", chargeID)
		}
		if c, err = change(found); err != nil {
			return err
		}
		return writeAttempts(ctx, tx, []billing.Charge{c})
	})
	return c, err
}

func lockCharge(ctx context.Context, tx pgx.Tx, chargeID string) (billing.Charge, error) {
	rows, _ := tx.Query(ctx, `select `+chargeColumns+` from billing.charges c where c.charge_id = @id for update`,
		pgx.StrictNamedArgs{"id": chargeID})
	c, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[billing.Charge])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return c, fault.Errorf(fault.NotFound, "charge %s not found", chargeID)
	case err != nil:
		return c, fmt.Errorf("lock charge: %w", err)
	}
	return c, nil
}

// Settle records the outcome of one attempt, and what the sink said.
func (s *Store) Settle(ctx context.Context, st billing.Settlement, now time.Time) (billing.Charge, error) {
	var settled billing.Charge
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		found, reconciliation, err := lockSettling(ctx, tx, st.ChargeID)
		if err != nil {
			return err
		}
		next, posted, err := st.Apply(found, now)
		if err != nil {
			return err
		}
		if next.SettledAt != nil {
			next.SettledIn = reconciliation
		}
		settled = next
		if next.RecordedToken == found.RecordedToken {
			return nil // recorded before
		}
		return writeSettled(ctx, tx, next, posted, st.SinkBalanceCredits)
	})
	return settled, err
}

// Resolve settles a charge by hand.
func (s *Store) Resolve(ctx context.Context, r billing.Resolve, op billing.Operation, now time.Time) (billing.Charge, error) {
	var resolved billing.Charge
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		found, reconciliation, err := lockSettling(ctx, tx, r.ChargeID)
		if err != nil {
			return err
		}
		next, posted, err := r.Apply(found, now)
		if err != nil {
			return err
		}
		if next.SettledAt != nil {
			next.SettledIn = reconciliation
		}
		resolved = next
		if r.DryRun {
			return nil
		}
		if err := writeSettled(ctx, tx, next, posted, ""); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			update billing.balances set reconcile_due_at = least(reconcile_due_at, @now) where team_id = @team_id`,
			pgx.StrictNamedArgs{"team_id": next.TeamID, "now": now})
		if err != nil {
			return fmt.Errorf("make team due: %w", err)
		}
		op.TeamID = next.TeamID
		return writeOperation(ctx, tx, &op)
	})
	return resolved, err
}

// lockSettling locks a charge that is to be settled, and tells the newest
// reconciliation of its team. The balance is locked first, as everywhere.
func lockSettling(ctx context.Context, tx pgx.Tx, chargeID string) (billing.Charge, int64, error) {
	var reconciliation int64
	err := tx.QueryRow(ctx, `
		select reconcile_token from billing.balances
		where team_id = (select team_id from billing.charges where charge_id = @id)
		for update`,
		pgx.StrictNamedArgs{"id": chargeID}).Scan(&reconciliation)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return billing.Charge{}, 0, fmt.Errorf("lock balance: %w", err)
	}
	c, err := lockCharge(ctx, tx, chargeID)
	return c, reconciliation, err
}

// writeSettled writes a charge and what its settlement adds to the posted sum of
// the team.
func writeSettled(ctx context.Context, tx pgx.Tx, c billing.Charge, posted money.NanoUSD, sinkBalance string) error {
	if err := writeAttempts(ctx, tx, []billing.Charge{c}); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		update billing.balances
		set posted_nano_usd = posted_nano_usd + @posted,
			sink_balance_credits = coalesce(nullif(@sink_balance, ''), sink_balance_credits)
		where team_id = @team_id`,
		pgx.StrictNamedArgs{"team_id": c.TeamID, "posted": int64(posted), "sink_balance": sinkBalance})
	if err != nil {
		return fmt.Errorf("move balance: %w", err)
	}
	return nil
}

// writeAttempts writes what charges tell of their attempts. What they are never
// changes.
func writeAttempts(ctx context.Context, tx pgx.Tx, charges []billing.Charge) error {
	var batch pgx.Batch
	for _, c := range charges {
		batch.Queue(`
			update billing.charges
			set state = @state, unsure = @unsure, attempts = @attempts, sent_attempts = @sent_attempts, key_round = @key_round,
				proof = @proof, last_error = @last_error, first_sent_at = @first_sent_at, due_at = @due_at,
				settled_at = @settled_at, shortfall_nano_usd = @shortfall, lease_token = @lease_token,
				recorded_token = @recorded_token, sent_token = @sent_token, lease_marks = @lease_marks, settled_in = @settled_in,
				lease_worker = @lease_worker, lease_until = @lease_until, sent_device = @sent_device, sent_key = @sent_key
			where charge_id = @charge_id`,
			pgx.StrictNamedArgs{
				"charge_id": c.ChargeID, "state": c.State, "unsure": c.Unsure, "attempts": c.Attempts,
				"sent_attempts": c.SentAttempts, "key_round": c.KeyRound, "proof": c.Proof, "last_error": c.LastError,
				"first_sent_at": c.FirstSentAt, "due_at": c.DueAt, "settled_at": c.SettledAt,
				"shortfall": int64(c.ShortfallNanoUSD), "lease_token": c.LeaseToken, "recorded_token": c.RecordedToken,
				"sent_token": c.SentToken, "lease_marks": c.LeaseMarks, "settled_in": c.SettledIn,
				"lease_worker": c.LeaseWorker, "lease_until": c.LeaseUntil, "sent_device": c.SentDevice, "sent_key": c.SentKey,
			})
	}
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("write charges: %w", err)
	}
	return nil
}
