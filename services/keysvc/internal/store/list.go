package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// order is what keys are sorted by and the type of its values; empty: the id,
// which sorts as the time of its making does.
type order struct{ value, kind string }

var orders = map[key.Sort]order{
	key.ByUpdate: {"k.updated_at", "timestamptz"},
	key.ByAlias:  {`k.key_alias collate "C"`, "text"},
	key.ByBudget: {fmt.Sprintf("coalesce(k.max_budget_nano_usd, %d)", key.NoBudget), "bigint"},
}

// Keys implements key.Store. The conditions are written only when they filter,
// so that each mix of filters gets a plan with the index that suits it.
func (s *Store) Keys(ctx context.Context, f key.Filter, slice key.Slice) ([]key.Key, error) {
	where, args := keyFilter(f)
	direction, beyond := " desc", "<"
	if slice.Ascending {
		direction, beyond = "", ">"
	}
	by := ""
	o := orders[slice.Sort]
	if o.value != "" {
		by = o.value + direction + ", "
	}
	switch {
	case slice.Behind != nil && o.value != "":
		where += " and (" + o.value + ", k.key_id) " + beyond + " (@value::text::" + o.kind + ", @behind)"
		args["value"], args["behind"] = slice.Behind.Value, slice.Behind.ID
	case slice.Behind != nil:
		where, args["behind"] = where+" and k.key_id "+beyond+" @behind", slice.Behind.ID
	}
	args["skip"], args["limit"] = slice.Skip, slice.Limit
	var keys []key.Key
	err := s.do(ctx, func(ctx context.Context) error {
		rows, _ := s.db.Query(ctx, `
			select `+keyColumns+`
			from keys.keys k
			where `+where+`
			order by `+by+`k.key_id`+direction+`
			offset @skip
			limit @limit`, args)
		var err error
		if keys, err = pgx.CollectRows(rows, pgx.RowToStructByName[key.Key]); err != nil {
			return fmt.Errorf("list keys: %w", err)
		}
		return nil
	})
	return keys, err
}

// CountKeys implements key.Store.
func (s *Store) CountKeys(ctx context.Context, f key.Filter) (int64, error) {
	where, args := keyFilter(f)
	return s.count(ctx, "keys.keys k", where, args)
}

func (s *Store) count(ctx context.Context, table, where string, args pgx.StrictNamedArgs) (int64, error) {
	var n int64
	err := s.do(ctx, func(ctx context.Context) error {
		if err := s.db.QueryRow(ctx, `select count(*) from `+table+` where `+where, args).Scan(&n); err != nil {
			return fmt.Errorf("count %s: %w", table, err)
		}
		return nil
	})
	return n, err
}

// keyFilter is the condition on keys.keys k and its arguments.
func keyFilter(f key.Filter) (string, pgx.StrictNamedArgs) {
	where, args := []string{"true"}, pgx.StrictNamedArgs{}
	add := func(name, condition string, value any) { where, args[name] = append(where, condition), value }
	if f.TeamID != "" {
		add("team_id", "k.team_id = @team_id", f.TeamID)
	}
	if f.UserID != "" {
		add("user_id", "k.user_id = @user_id and k.user_id <> ''", f.UserID)
	}
	if f.KeyAlias != "" {
		add("key_alias", "k.key_alias = @key_alias and k.key_alias <> ''", f.KeyAlias)
	}
	if f.Token != "" {
		add("token", `k.key_id in (
			select key_id from keys.keys where token = @token
			union select key_id from keys.old_secrets where token = @token)`, f.Token)
	}
	if !f.CreatedAfter.IsZero() {
		add("created_after", "k.created_at >= @created_after", f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		add("created_before", "k.created_at < @created_before", f.CreatedBefore)
	}
	if state := stateOf(f); state != "" {
		where = append(where, state)
		if strings.Contains(state, "@now") {
			args["now"] = f.Now
		}
	}
	return strings.Join(where, " and "), args
}

// stateOf is the condition that says which states are wanted; empty: all.
func stateOf(f key.Filter) string {
	const live = "k.revoked_at is null"
	const unexpired = live + " and (k.expires_at is null or k.expires_at > @now)"
	switch f.State {
	case key.StateActive:
		return unexpired + " and not k.blocked"
	case key.StateBlocked:
		return unexpired + " and k.blocked"
	case key.StateExpired:
		return live + " and k.expires_at <= @now"
	case key.StateRevoked:
		return "k.revoked_at is not null"
	}
	if f.Ended {
		return ""
	}
	return unexpired
}
