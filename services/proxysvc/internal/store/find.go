package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Find tells what the ledger has of requests, adjustments included.
func (s *Store) Find(ctx context.Context, requestIDs []string) (map[string]ledger.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := map[string]ledger.Found{}
	err := pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var id string
		var f ledger.Found
		u := &f.Usage
		rows, _ := tx.Query(ctx, `
			with mine as (
			  select request_id as id, r.* from spend.spend_logs r where request_id = any(@ids)
			  union all
			  select adjusts as id, r.* from spend.spend_logs r where adjusts = any(@ids))
			select id, count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cache_read_input_tokens)::bigint,
			  sum(cache_write_5m_input_tokens)::bigint, sum(cache_write_1h_input_tokens)::bigint, sum(web_search_requests)::bigint,
			  sum(cost_nano_usd)::bigint
			from mine group by id`, pgx.StrictNamedArgs{"ids": requestIDs})
		_, err := pgx.ForEachRow(rows, []any{
			&id, &f.Rows, &u.InputTokens, &u.OutputTokens, &u.CacheReadTokens,
			&u.CacheWrite5mTokens, &u.CacheWrite1hTokens, &u.WebSearchRequests, &f.Cost,
		}, func() error {
			found[id] = f
			return nil
		})
		if err != nil {
			return err
		}
		rows, _ = tx.Query(ctx, `select request_id from spend.open_requests where request_id = any(@ids)`, pgx.StrictNamedArgs{"ids": requestIDs})
		open, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, id := range open {
			found[id] = ledger.Found{Open: true}
		}
		return err
	})
	if err != nil {
		return nil, explain("find requests", err)
	}
	return found, nil
}

// Writing tells which of these instances have a log that can still be written.
func (s *Store) Writing(ctx context.Context, instances []string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rows, _ := s.db.Query(ctx, `
		select distinct instance from spend.logs
		where instance = any(@instances) and fenced_at is null and closed_at is null`,
		pgx.StrictNamedArgs{"instances": instances})
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, explain("look for logs", err)
	}
	writing := make(map[string]bool, len(names))
	for _, name := range names {
		writing[name] = true
	}
	return writing, nil
}
