package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Logs lists logs with a greater id than after.
func (s *Store) Logs(ctx context.Context, after int64, limit int) ([]ledger.Log, error) {
	rows, _ := s.db.Query(ctx, `
		select log_id, last_seq, closed_at is not null as closed, started_at, heartbeat_at
		from spend.logs where log_id > @after order by log_id limit @limit`,
		pgx.StrictNamedArgs{"after": after, "limit": limit})
	logs, err := pgx.CollectRows(rows, pgx.RowToStructByName[ledger.Log])
	if err != nil {
		return nil, explain("list logs", err)
	}
	return logs, nil
}

// ReadLogRows reads one log from a cursor on, without a gap. DataLoss when a
// row that must be there is not.
func (s *Store) ReadLogRows(ctx context.Context, logID, after int64, limit int) (ledger.Log, []ledger.Row, error) {
	var log ledger.Log
	var rows []ledger.Row
	// One snapshot for both, so that last_seq and the rows agree.
	err := pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		found, _ := tx.Query(ctx, `
			select log_id, last_seq, closed_at is not null as closed, started_at, heartbeat_at
			from spend.logs where log_id = @log_id`, pgx.StrictNamedArgs{"log_id": logID})
		var err error
		if log, err = pgx.CollectExactlyOneRow(found, pgx.RowToStructByName[ledger.Log]); err != nil {
			return err
		}
		rows, err = selectRows(ctx, tx, `where log_id = @log_id and seq > @after order by seq limit @limit`,
			pgx.StrictNamedArgs{"log_id": logID, "after": after, "limit": limit})
		return err
	})
	if isNoRows(err) {
		return log, nil, fault.Errorf(fault.NotFound, "log %d does not exist", logID)
	}
	if err != nil {
		return log, nil, explain("read a log", err)
	}
	want := after
	for _, r := range rows {
		if want++; r.Seq != want {
			return log, nil, fault.Errorf(fault.DataLoss, "log %d has no row %d", logID, want)
		}
	}
	if len(rows) < limit && want < log.LastSeq {
		return log, nil, fault.Errorf(fault.DataLoss, "log %d has no row %d", logID, want+1)
	}
	return log, rows, nil
}

// Rows lists spend rows, newest first.
func (s *Store) Rows(ctx context.Context, f ledger.Filter) ([]ledger.Row, error) {
	var where []string
	args := pgx.StrictNamedArgs{"limit": f.Limit}
	add := func(condition, name string, value any) {
		where = append(where, condition)
		args[name] = value
	}
	for column, value := range map[string]string{"team_id": f.TeamID, "key_id": f.KeyID, "request_id": f.RequestID, "model": f.Model} {
		if value != "" {
			add(column+" = @"+column, column, value)
		}
	}
	if f.UserID != "" {
		add(ofUser, "user_id", f.UserID)
	}
	if !f.EndedAfter.IsZero() {
		add("ended_at >= @ended_after", "ended_after", f.EndedAfter)
	}
	if !f.EndedBefore.IsZero() {
		add("ended_at < @ended_before", "ended_before", f.EndedBefore)
	}
	if f.After != nil {
		add("(ended_at, log_id, seq) < (@after_ended, @after_log, @after_seq)", "after_ended", f.After.EndedAt)
		args["after_log"], args["after_seq"] = f.After.LogID, f.After.Seq
	}
	clause := ""
	if len(where) > 0 {
		clause = "where " + strings.Join(where, " and ")
	}
	rows, err := selectRows(ctx, s.db, clause+` order by ended_at desc, log_id desc, seq desc limit @limit`, args)
	if err != nil {
		return nil, explain("list spend", err)
	}
	return rows, nil
}

type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func selectRows(ctx context.Context, q queryer, clause string, args pgx.StrictNamedArgs) ([]ledger.Row, error) {
	rows, _ := q.Query(ctx, `
		select log_id, seq, request_id, message_id, upstream_request_id, key_id, token, team_id, user_id, model_group, model,
		  model_id, price_version, stream, started_at, first_byte_at, ended_at, request_tags, user_agent,
		  input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens,
		  web_search_requests, speed, inference_geo, service_tier, cost_nano_usd, status, estimated, stop_reason, http_status, error_type,
		  retries, reasoning_tokens, client, cost_breakdown, adjusts
		from spend.spend_logs `+clause, args)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Row, error) {
		var r ledger.Row
		var firstByte *time.Time
		var tagText []byte
		u := &r.Usage
		err := row.Scan(&r.LogID, &r.Seq, &r.RequestID, &r.MessageID, &r.UpstreamRequestID, &r.KeyID, &r.Token, &r.TeamID, &r.UserID,
			&r.ModelGroup, &r.Model, &r.ModelID, &r.PriceVersion, &r.Stream, &r.StartedAt, &firstByte, &r.EndedAt, &tagText, &r.UserAgent,
			&u.InputTokens, &u.OutputTokens, &u.CacheReadTokens, &u.CacheWrite5mTokens, &u.CacheWrite1hTokens,
			&u.WebSearchRequests, &u.Speed, &u.InferenceGeo, &u.ServiceTier, &r.Cost, &r.Status, &r.Estimated,
			&r.StopReason, &r.HTTPStatus, &r.ErrorType, &r.Retries, &u.ReasoningTokens,
			&r.Client, &r.Breakdown, &r.Adjusts)
		if err != nil {
			return r, err
		}
		if firstByte != nil {
			r.FirstByteAt = *firstByte
		}
		if err := json.Unmarshal(tagText, &r.Tags); err != nil {
			return r, fmt.Errorf("tags of %s: %w", r.RequestID, err)
		}
		return r, nil
	})
}

func dateOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Summary tells where one account stands.
func (s *Store) Summary(ctx context.Context, id ledger.AccountID) (ledger.Summary, error) {
	var sum ledger.Summary
	err := s.db.QueryRow(ctx, `
		select t.requests, t.spent, o.held, o.open
		from (select coalesce(sum(requests), 0) as requests, coalesce(sum(cost_nano_usd), 0) as spent
		      from `+uses("@kind", "array[@id]")+`) t,
		     (select coalesce(sum(held_nano_usd), 0) as held, count(*) as open from spend.open_requests
		      where case @kind when 'key' then key_id when 'team' then team_id when 'user' then user_id else model end = @id) o`,
		pgx.StrictNamedArgs{"kind": id.Kind, "id": id.ID}).Scan(&sum.Requests, &sum.Spent, &sum.Held, &sum.OpenRequests)
	if err != nil {
		return sum, explain("read an account", err)
	}
	return sum, nil
}

// OpenRequests lists requests in flight, oldest first.
func (s *Store) OpenRequests(ctx context.Context, f ledger.Filter) ([]ledger.OpenRequest, error) {
	rows, _ := s.db.Query(ctx, `
		select log_id, request_id, key_id, team_id, user_id, model, started_at, held_nano_usd
		from spend.open_requests
		where (@team_id = '' or team_id = @team_id) and (@user_id = '' or user_id = @user_id) and (@key_id = '' or key_id = @key_id)
		order by started_at, request_id limit @limit`,
		pgx.StrictNamedArgs{"team_id": f.TeamID, "user_id": f.UserID, "key_id": f.KeyID, "limit": f.Limit})
	open, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.OpenRequest, error) {
		var o ledger.OpenRequest
		return o, row.Scan(&o.LogID, &o.RequestID, &o.KeyID, &o.TeamID, &o.UserID, &o.Model, &o.StartedAt, &o.Hold)
	})
	if err != nil {
		return nil, explain("list open requests", err)
	}
	return open, nil
}
