package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// channel is what is notified of every new event.
const channel = "keys_events"

// Append implements key.Tx. Taking the revision makes others who want one wait
// until this transaction ends.
func (t tx) Append(ctx context.Context, e key.Event) (int64, error) {
	var revision int64
	err := t.QueryRow(ctx, `
		with next as (
			update keys.revision set value = value + 1 returning value
		), event as (
			insert into keys.events (revision, key_ids, team_ids, stopped, reason, at)
			select value, coalesce(@key_ids::text[], '{}'), coalesce(@team_ids::text[], '{}'),
				@stopped::boolean, @reason::text, @at::timestamptz
			from next
		)
		select value from next, pg_notify('`+channel+`', value::text)`,
		pgx.StrictNamedArgs{
			"key_ids": e.KeyIDs, "team_ids": e.TeamIDs, "stopped": e.Stopped, "reason": e.Reason, "at": e.At,
		}).Scan(&revision)
	if err != nil {
		return 0, fmt.Errorf("append event: %w", err)
	}
	return revision, nil
}

// Revision implements key.Tx.
func (t tx) Revision(ctx context.Context) (int64, error) {
	var revision int64
	if err := t.QueryRow(ctx, `select value from keys.revision`).Scan(&revision); err != nil {
		return 0, fmt.Errorf("read revision: %w", err)
	}
	return revision, nil
}

// Events implements watch.Log: up to limit events after a revision, in order,
// and the newest revision of the same snapshot.
func (s *Store) Events(ctx context.Context, after int64, limit int) ([]key.Event, int64, error) {
	type row struct {
		Newest int64
		key.Event
	}
	var rows []row
	err := s.do(ctx, func(ctx context.Context) error {
		// The left join gives one row without an event when there is none.
		r, _ := s.db.Query(ctx, `
			select r.value as newest, coalesce(e.revision, 0) as revision, e.key_ids, e.team_ids,
				coalesce(e.stopped, false) as stopped, coalesce(e.reason, '') as reason,
				coalesce(e.at, to_timestamp(0)) as at
			from keys.revision r
			left join (
				select revision, key_ids, team_ids, stopped, reason, at
				from keys.events
				where revision > @after
				order by revision
				limit @limit
			) e on true
			order by e.revision`,
			pgx.StrictNamedArgs{"after": after, "limit": limit})
		var err error
		if rows, err = pgx.CollectRows(r, pgx.RowToStructByName[row]); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	if len(rows) == 0 {
		return nil, 0, errors.New("read events: keys.revision is empty")
	}
	var events []key.Event
	for _, r := range rows {
		if r.Revision > 0 {
			events = append(events, r.Event)
		}
	}
	return events, rows[0].Newest, nil
}

// Listen implements watch.Log: it calls woken after every commit that appended
// an event, from a connection of its own, until that breaks or ctx ends. It
// calls woken once when it begins, because of what came before.
func (s *Store) Listen(ctx context.Context, woken func()) error {
	conn, err := pgx.ConnectConfig(ctx, s.db.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer func() {
		// ctx may have ended; closing politely must not take long.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, `listen `+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		woken()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
}
