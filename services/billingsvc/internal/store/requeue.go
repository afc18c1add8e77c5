package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Requeue makes dead charges due at now. One that an attempt may have applied is
// ambiguous again.
func (s *Store) Requeue(ctx context.Context, r billing.Requeue, op billing.Operation, now time.Time) (billing.Requeued, error) {
	var out billing.Requeued
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		out = billing.Requeued{}
		dead, err := lockDead(ctx, tx, r)
		if err != nil {
			return err
		}
		for _, c := range dead {
			next, ok := r.Apply(c, now)
			if !ok {
				out.Unverified = append(out.Unverified, c.ChargeID)
				continue
			}
			out.Charges = append(out.Charges, next)
		}
		if r.DryRun || len(out.Charges) == 0 {
			return nil
		}
		byTeam := slices.Clone(out.Charges) // the order in which everybody comes to the queue
		slices.SortStableFunc(byTeam, func(a, b billing.Charge) int { return strings.Compare(a.TeamID, b.TeamID) })
		if err := writeAttempts(ctx, tx, byTeam); err != nil {
			return err
		}
		return writeOperation(ctx, tx, &op)
	})
	if err != nil {
		return billing.Requeued{}, fmt.Errorf("requeue charges: %w", err)
	}
	return out, nil
}

// lockDead locks the dead charges that a request chooses, oldest first.
func lockDead(ctx context.Context, tx pgx.Tx, r billing.Requeue) ([]billing.Charge, error) {
	f := r.Filter
	rows, _ := tx.Query(ctx, `
		select `+chargeColumns+`
		from billing.charges c
		where c.state = 'dead'
			and (cardinality(@ids::text[]) = 0 or c.charge_id = any(@ids))
			and (@team_id = '' or c.team_id = @team_id)
			and (@error = '' or position(@error in c.last_error) > 0)
			and (@after::timestamptz is null or c.frozen_at >= @after)
			and (@before::timestamptz is null or c.frozen_at < @before)
		order by c.charge_id
		limit @limit
		for update`,
		pgx.StrictNamedArgs{
			"ids": append([]string{}, r.ChargeIDs...), "team_id": f.TeamID, "error": f.ErrorContains,
			"after": f.FrozenAfter, "before": f.FrozenBefore, "limit": f.Max,
		})
	return collect[billing.Charge](rows, "find dead charges")
}
