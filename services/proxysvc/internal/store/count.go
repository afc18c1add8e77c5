package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Count brings the totals up to the rows of all logs that were not counted for as long
// as `since`, and returns how many rows these were. Replicas may count at once: each
// log is counted by one of them.
func (s *Store) Count(ctx context.Context, since time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rows, _ := s.db.Query(ctx, `
		select log_id from spend.counted c join spend.logs l using (log_id)
		where (l.last_seq > c.seq or l.closed_at is not null or l.fenced_at is not null)
		  and counted_at <= clock_timestamp() - @since::interval`,
		pgx.StrictNamedArgs{"since": since})
	logs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, explain("look for rows that are not counted", err)
	}
	var counted int64
	for _, log := range logs { // each by itself: none waits for the next one
		var n int64
		if err := s.db.QueryRow(ctx, `select spend.count_rows($1)`, log).Scan(&n); err != nil {
			return counted, explain("count rows", err)
		}
		counted += n
	}
	return counted, nil
}
