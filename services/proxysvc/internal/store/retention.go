package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Detach takes days before `before` out of the ledger's table, oldest first, and
// returns how many. Their tables stay beside it. A day that has rows which are not in
// the totals yet waits for the next time.
func (s *Store) Detach(ctx context.Context, before time.Time) (int, error) {
	rows, _ := s.db.Query(ctx, `
		select to_date(right(c.relname, 8), 'YYYYMMDD')
		from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'spend.spend_logs'::regclass and c.relname ~ '^spend_logs_\d{8}$'
		  and to_date(right(c.relname, 8), 'YYYYMMDD') < @before::date
		order by 1`, pgx.StrictNamedArgs{"before": before.UTC().Format(time.DateOnly)})
	days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return 0, explain("list old days", err)
	}
	n := 0
	for _, day := range days {
		var left bool
		if err := s.db.QueryRow(ctx, `select spend.detach_day(@day)`, pgx.StrictNamedArgs{"day": day}).Scan(&left); err != nil {
			return n, explain(fmt.Sprintf("detach %s", day.Format(time.DateOnly)), err)
		}
		if left {
			n++
		}
	}
	return n, nil
}

// Unplaced counts the rows that no day's partition took. There should be none:
// partitions are made days ahead.
func (s *Store) Unplaced(ctx context.Context) (int64, error) {
	var n int64
	if err := s.db.QueryRow(ctx, `select count(*) from spend.spend_logs_default`).Scan(&n); err != nil {
		return 0, explain("count rows without a day", err)
	}
	return n, nil
}

// PublishView makes LiteLLM's view in the schema public. It returns why the role
// may not; empty: it is there.
func (s *Store) PublishView(ctx context.Context) (string, error) {
	var why string
	if err := s.db.QueryRow(ctx, `select spend.publish_view()`).Scan(&why); err != nil {
		return "", explain("publish LiteLLM's view", err)
	}
	return why, nil
}
