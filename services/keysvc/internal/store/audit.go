package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Audit implements key.Tx.
func (t tx) Audit(ctx context.Context, changes ...key.Change) error {
	batch := &pgx.Batch{}
	for _, c := range changes {
		before, err := document(c.Before)
		if err != nil {
			return err
		}
		after, err := document(c.After)
		if err != nil {
			return err
		}
		batch.Queue(`
			insert into keys.audit (at, actor, changed_by, request_id, action, entity, before, after)
			values (@at, @actor, @changed_by, @request_id, @action, @entity, @before, @after)`,
			pgx.StrictNamedArgs{
				"at": c.At, "actor": c.By.Actor, "changed_by": c.By.ChangedBy, "request_id": c.By.RequestID,
				"action": c.Action, "entity": c.Entity, "before": before, "after": after,
			})
	}
	return t.send(ctx, "audit", batch)
}

// document is the JSON of a key or team; nil stays nil.
func document(v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	doc, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("audit document: %w", err)
	}
	return doc, nil
}

// auditRow is a row of keys.audit.
type auditRow struct {
	ID                          int64
	At                          time.Time
	Actor, ChangedBy, RequestID string
	Action, Entity              string
	Before, After               json.RawMessage
}

// AuditRows implements key.Store.
func (s *Store) AuditRows(ctx context.Context, f key.AuditFilter) ([]key.Entry, error) {
	where, args := auditFilter(f)
	args["limit"] = f.Limit
	var rows []auditRow
	err := s.do(ctx, func(ctx context.Context) error {
		r, _ := s.db.Query(ctx, `
			select id, at, actor, changed_by, request_id, action, entity, before, after
			from keys.audit
			where `+where+`
			order by id desc
			limit @limit`, args)
		var err error
		if rows, err = pgx.CollectRows(r, pgx.RowToStructByName[auditRow]); err != nil {
			return fmt.Errorf("list audit rows: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	entries := make([]key.Entry, len(rows))
	for i, r := range rows {
		if entries[i], err = r.entry(); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// auditFilter is the condition on keys.audit and its arguments.
func auditFilter(f key.AuditFilter) (string, pgx.StrictNamedArgs) {
	where, args := []string{"true"}, pgx.StrictNamedArgs{}
	add := func(name, condition string, value any) { where, args[name] = append(where, condition), value }
	if f.Entity != "" {
		add("entity", "entity = @entity", f.Entity)
	}
	if f.Actor != "" {
		add("actor", "actor = @actor", f.Actor)
	}
	if f.RequestID != "" {
		add("request_id", "request_id = @request_id", f.RequestID)
	}
	if strings.HasSuffix(f.Action, ".") {
		add("action", "starts_with(action, @action)", f.Action)
	} else if f.Action != "" {
		add("action", "action = @action", f.Action)
	}
	if !f.Since.IsZero() {
		add("since", "at >= @since", f.Since)
	}
	if !f.Until.IsZero() {
		add("until", "at < @until", f.Until)
	}
	if f.Before > 0 {
		add("before", "id < @before", f.Before)
	}
	return strings.Join(where, " and "), args
}

// entry reads the documents of a row, which are of a key or a team, as its
// action says.
func (r auditRow) entry() (key.Entry, error) {
	e := key.Entry{
		ID: r.ID, At: r.At, Actor: r.Actor, ChangedBy: r.ChangedBy, RequestID: r.RequestID, Action: r.Action, Entity: r.Entity,
	}
	var err error
	if strings.HasPrefix(r.Action, "team.") {
		if e.TeamBefore, err = read[key.Team](r.Before); err == nil {
			e.TeamAfter, err = read[key.Team](r.After)
		}
	} else {
		if e.KeyBefore, err = read[key.Key](r.Before); err == nil {
			e.KeyAfter, err = read[key.Key](r.After)
		}
	}
	if err != nil {
		return e, fmt.Errorf("read audit row %d: %w", r.ID, err)
	}
	return e, nil
}

// read is the value of a document; nil stays nil.
func read[T any](doc json.RawMessage) (*T, error) {
	if doc == nil {
		return nil, nil
	}
	v := new(T)
	return v, json.Unmarshal(doc, v)
}

// PruneAudit implements key.Store.
func (s *Store) PruneAudit(ctx context.Context, before time.Time, limit int) (int, error) {
	return s.prune(ctx, "keys.audit", "id", before, limit)
}

// PruneEvents implements key.Store.
func (s *Store) PruneEvents(ctx context.Context, before time.Time, limit int) (int, error) {
	return s.prune(ctx, "keys.events", "revision", before, limit)
}

// prune deletes the oldest rows of a log by its number, up to the first one that
// is young enough: what is left has no gaps, whatever the clocks said.
func (s *Store) prune(ctx context.Context, table, number string, before time.Time, limit int) (int, error) {
	var n int
	err := s.do(ctx, func(ctx context.Context) error {
		tag, err := s.db.Exec(ctx, `
			delete from `+table+` where `+number+` in (
				select `+number+` from `+table+`
				where `+number+` < coalesce(
					(select `+number+` from `+table+` where at >= @before order by `+number+` limit 1), 9223372036854775807)
				order by `+number+`
				limit @limit)`,
			pgx.StrictNamedArgs{"before": before, "limit": limit})
		if err != nil {
			return fmt.Errorf("prune %s: %w", table, err)
		}
		n = int(tag.RowsAffected())
		return nil
	})
	return n, err
}
