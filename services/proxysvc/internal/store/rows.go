package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// orders are the sorts of rows, each to the last column unique.
var orders = map[ledger.RowSort]string{
	ledger.ByEnd:    "ended_at @dir, log_id @dir, seq @dir",
	ledger.ByCost:   "cost_nano_usd @dir, ended_at @dir, log_id @dir, seq @dir",
	ledger.ByTokens: rowSize + " @dir, ended_at @dir, log_id @dir, seq @dir",
}

// rowSize is all tokens of a row.
const rowSize = `(input_tokens + cache_read_input_tokens + cache_write_5m_input_tokens + cache_write_1h_input_tokens + output_tokens)`

// ofUser is the condition that rows are a user's. There is no index by user: they are
// found by the keys that it had.
const ofUser = `user_id = @user_id and (day, key_id) in (select day, key_id from spend.keys_of_user(@user_id))`

// FindRows lists the rows that a query picks. Only the partitions of its days
// are read.
func (s *Store) FindRows(ctx context.Context, q ledger.RowQuery) ([]ledger.Row, error) {
	clause, args := picked(q)
	args["limit"], args["offset"] = q.Limit, q.Offset
	direction := "desc"
	if q.Ascending {
		direction = "asc"
	}
	order := strings.ReplaceAll(orders[q.Sort], "@dir", direction)
	rows, err := selectRows(ctx, s.db, clause+" order by "+order+" limit @limit offset @offset", args)
	if err != nil {
		return nil, explain("find spend rows", err)
	}
	return rows, nil
}

// CountRows counts the rows that a query picks, whatever its page.
func (s *Store) CountRows(ctx context.Context, q ledger.RowQuery) (int64, error) {
	clause, args := picked(q)
	var n int64
	if err := s.db.QueryRow(ctx, `select count(*) from spend.spend_logs `+clause, args).Scan(&n); err != nil {
		return 0, explain("count spend rows", err)
	}
	return n, nil
}

// picked is the condition of a query.
func picked(q ledger.RowQuery) (string, pgx.StrictNamedArgs) {
	args := pgx.StrictNamedArgs{}
	var where []string
	add := func(condition, name string, value any) {
		where = append(where, condition)
		args[name] = value
	}
	for _, f := range []struct{ column, value string }{
		{"team_id", q.TeamID},
		{"key_id", q.KeyID},
		{"request_id", q.RequestID},
		{"model", q.Model},
		{"model_id", q.ModelID},
	} {
		if f.value != "" {
			add(f.column+" = @"+f.column, f.column, clean(f.value))
		}
	}
	if q.UserID != "" {
		add(ofUser, "user_id", clean(q.UserID))
	}
	if q.EndUser != "" {
		add("client ->> 'end_user' = @end_user", "end_user", clean(q.EndUser))
	}
	if q.MinCost != nil {
		add("cost_nano_usd >= @min_cost", "min_cost", int64(*q.MinCost))
	}
	if q.MaxCost != nil {
		add("cost_nano_usd <= @max_cost", "max_cost", int64(*q.MaxCost))
	}
	if q.Failed != nil {
		add("(status not in ('completed', 'adjusted')) = @failed", "failed", *q.Failed)
	}
	if !q.From.IsZero() {
		add("ended_at >= @from and day >= @from_day::date", "from", q.From)
		args["from_day"] = q.From.UTC().Format(time.DateOnly)
	}
	if !q.To.IsZero() {
		add("ended_at <= @to and day <= @to_day::date", "to", q.To)
		args["to_day"] = q.To.UTC().Format(time.DateOnly)
	}
	if len(where) == 0 {
		return "", args
	}
	return "where " + strings.Join(where, " and "), args
}
