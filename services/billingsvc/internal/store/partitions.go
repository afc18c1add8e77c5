package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// monthsAhead is how many months after the current one have a partition.
const monthsAhead = 3

// EnsurePartitions makes the partitions of billing_events from last month to
// three months ahead, and says how many events sit in the default partition,
// whose days no partition covers. Any number of replicas may call it.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time) (stray int64, err error) {
	this := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	for m := -1; m <= monthsAhead; m++ {
		if err := s.ensurePartition(ctx, this.AddDate(0, m, 0)); err != nil {
			return 0, err
		}
	}
	if err := s.db.QueryRow(ctx, `select count(*) from billing.billing_events_default`).Scan(&stray); err != nil {
		return 0, fmt.Errorf("count stray events: %w", err)
	}
	return stray, nil
}

// ensurePartition makes one month's partition. Events of that month which the
// default partition caught move into it. The table is filled before it is
// attached: "create table … partition of" would refuse, and lock the parent.
func (s *Store) ensurePartition(ctx context.Context, from time.Time) error {
	name := "billing_events_" + from.Format("2006_01")
	table := pgx.Identifier{Schema, name}.Sanitize()
	first, end := from.Format(time.DateOnly), from.AddDate(0, 1, 0).Format(time.DateOnly)
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		exists := false
		err := tx.QueryRow(ctx, `select to_regclass(@name) is not null`, pgx.StrictNamedArgs{"name": table}).Scan(&exists)
		if err != nil || exists {
			return err
		}
		// One replica makes it; the lock on the default partition keeps new
		// events of the month out of it meanwhile.
		if _, err := tx.Exec(ctx, `lock table billing.billing_events_default in access exclusive mode`); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `select to_regclass(@name) is not null`, pgx.StrictNamedArgs{"name": table}).Scan(&exists)
		if err != nil || exists {
			return err
		}
		const columns = `day, idempotency_key, organization_id, event_type, quantity, cost_nano_usd, price_nano_usd,
			markup, session_ids, status, metadata, charge_id, log_id, seq, occurred_at, created_at`
		_, err = tx.Exec(ctx, `
			create table `+table+` (like billing.billing_events including all);
			with moved as (
				delete from billing.billing_events_default
				where day >= '`+first+`' and day < '`+end+`'
				returning `+columns+`
			)
			insert into `+table+` (`+columns+`) select `+columns+` from moved;
			alter table billing.billing_events attach partition `+table+`
				for values from ('`+first+`') to ('`+end+`')`)
		return err
	})
	if err != nil {
		return fmt.Errorf("make partition %s: %w", name, err)
	}
	return nil
}
