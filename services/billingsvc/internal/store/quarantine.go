package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// quarantineColumns are the fields of quarantined, of a table named q.
const quarantineColumns = `q.row, q.reason, q.created_at, q.rerated_at`

// quarantined is a row as it is kept.
type quarantined struct {
	Row       json.RawMessage
	Reason    string
	CreatedAt time.Time
	ReratedAt *time.Time
}

// Quarantined lists the quarantine in order of log and seq.
func (s *Store) Quarantined(ctx context.Context, q billing.QuarantineQuery) ([]billing.QuarantineEntry, error) {
	rows, _ := s.db.Query(ctx, `
		select `+quarantineColumns+`
		from billing.quarantine q
		where (@team_id = '' or q.team_id = @team_id) and (@all or q.rerated_at is null)
			and (q.log_id, q.seq) > (@log_id::bigint, @seq::bigint)
		order by q.log_id, q.seq
		limit @limit`,
		pgx.StrictNamedArgs{
			"team_id": q.TeamID, "all": q.IncludeRerated, "log_id": q.After.LogID, "seq": q.After.Seq, "limit": q.Limit,
		})
	return entries(rows)
}

// QuarantinedAt returns those of the places that wait.
func (s *Store) QuarantinedAt(ctx context.Context, places []billing.Place) ([]billing.QuarantineEntry, error) {
	logs, seqs := columns(places)
	rows, _ := s.db.Query(ctx, `
		select `+quarantineColumns+`
		from billing.quarantine q
		join unnest(@logs::bigint[], @seqs::bigint[]) as p (log_id, seq) using (log_id, seq)
		where q.rerated_at is null
		order by q.log_id, q.seq`,
		pgx.StrictNamedArgs{"logs": logs, "seqs": seqs})
	return entries(rows)
}

func columns(places []billing.Place) (logs, seqs []int64) {
	for _, p := range places {
		logs, seqs = append(logs, p.LogID), append(seqs, p.Seq)
	}
	return logs, seqs
}

func entries(rows pgx.Rows) ([]billing.QuarantineEntry, error) {
	list, err := collect[quarantined](rows, "read the quarantine")
	if err != nil {
		return nil, err
	}
	out := make([]billing.QuarantineEntry, 0, len(list))
	for _, q := range list {
		e := billing.QuarantineEntry{CreatedAt: q.CreatedAt, ReratedAt: q.ReratedAt}
		e.Reason = q.Reason
		if err := json.Unmarshal(q.Row, &e.Row); err != nil {
			return nil, fmt.Errorf("decode row in quarantine: %w", err)
		}
		out = append(out, e)
	}
	return out, nil
}

// Rerate bills rows that wait, and marks them.
func (s *Store) Rerate(ctx context.Context, rules billing.Rules, events []billing.Event, op billing.Operation, now time.Time) ([]billing.Event, error) {
	var billed []billing.Event
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		waiting, err := lockWaiting(ctx, tx, events)
		if err != nil {
			return err
		}
		var fresh []billing.Event
		for _, e := range events {
			if waiting[billing.Place{LogID: e.LogID, Seq: e.Seq}] {
				fresh = append(fresh, e)
			}
		}
		if billed = nil; len(fresh) == 0 {
			return nil
		}
		if err := lockKeys(ctx, tx, keysOf(fresh)); err != nil {
			return err
		}
		entry, err := bill(ctx, tx, rules, fresh, now)
		if err != nil {
			return err
		}
		billed = entry.Events
		if err := markRerated(ctx, tx, billed, now); err != nil {
			return err
		}
		return writeOperation(ctx, tx, &op)
	})
	if err != nil {
		return nil, fmt.Errorf("rerate the quarantine: %w", err)
	}
	return billed, nil
}

// lockWaiting locks the quarantined rows of events and tells which still wait.
func lockWaiting(ctx context.Context, tx pgx.Tx, events []billing.Event) (map[billing.Place]bool, error) {
	var places []billing.Place
	for _, e := range events {
		places = append(places, billing.Place{LogID: e.LogID, Seq: e.Seq})
	}
	logs, seqs := columns(places)
	rows, _ := tx.Query(ctx, `
		select q.log_id, q.seq
		from billing.quarantine q
		join unnest(@logs::bigint[], @seqs::bigint[]) as p (log_id, seq) using (log_id, seq)
		where q.rerated_at is null
		order by q.log_id, q.seq
		for update of q`,
		pgx.StrictNamedArgs{"logs": logs, "seqs": seqs})
	list, err := collect[billing.Place](rows, "lock rows in quarantine")
	waiting := map[billing.Place]bool{}
	for _, p := range list {
		waiting[p] = true
	}
	return waiting, err
}

func markRerated(ctx context.Context, tx pgx.Tx, events []billing.Event, now time.Time) error {
	var places []billing.Place
	for _, e := range events {
		places = append(places, billing.Place{LogID: e.LogID, Seq: e.Seq})
	}
	logs, seqs := columns(places)
	_, err := tx.Exec(ctx, `
		update billing.quarantine q set rerated_at = @now
		from unnest(@logs::bigint[], @seqs::bigint[]) as p (log_id, seq)
		where q.log_id = p.log_id and q.seq = p.seq`,
		pgx.StrictNamedArgs{"logs": logs, "seqs": seqs, "now": now})
	if err != nil {
		return fmt.Errorf("mark rows as rerated: %w", err)
	}
	return nil
}
