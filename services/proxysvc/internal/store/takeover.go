package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// TakeOver fences the logs that have been silent and returns the requests that
// this log has to settle. A log is fenced in the same row that its own batches
// lock, so after it nothing more can come from it. Logs whose settler was fenced
// itself pass on, so every request has one settler that can still write.
func (s *Store) TakeOver(ctx context.Context, logID int64, silence time.Duration) ([]*ledger.Settlement, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var orphans []*ledger.Settlement
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			update spend.logs set fenced_at = clock_timestamp(), settler = @log_id
			where log_id in (
			  select log_id from spend.logs
			  where closed_at is null and fenced_at is null and log_id <> @log_id
			    and heartbeat_at < clock_timestamp() - @silence::interval
			  order by log_id for update skip locked)
			  and exists (select from spend.logs me where me.log_id = @log_id and me.fenced_at is null)`,
			pgx.StrictNamedArgs{"log_id": logID, "silence": silence})
		if err != nil {
			return fmt.Errorf("fence silent logs: %w", err)
		}
		_, err = tx.Exec(ctx, `
			update spend.logs set settler = @log_id
			where closed_at is null
			  and settler in (select log_id from spend.logs where fenced_at is not null or closed_at is not null)`,
			pgx.StrictNamedArgs{"log_id": logID})
		if err != nil {
			return fmt.Errorf("inherit logs: %w", err)
		}
		orphans, err = openRequests(ctx, tx, logID)
		return err
	})
	if err != nil {
		return nil, explain("take over silent logs", err)
	}
	return orphans, nil
}

// openRequests reads the requests of the logs that settler has to settle.
func openRequests(ctx context.Context, tx pgx.Tx, settler int64) ([]*ledger.Settlement, error) {
	rows, _ := tx.Query(ctx, `
		select o.request_id, o.key_id, o.token, o.team_id, o.user_id, o.model_group, o.model, o.model_id, o.price_version,
		  o.stream, o.started_at, o.request_tags, o.user_agent, o.client, o.held_nano_usd, o.held_tokens, o.message_id,
		  o.input_tokens, o.output_tokens, o.cache_read_input_tokens, o.cache_write_5m_input_tokens,
		  o.cache_write_1h_input_tokens, o.web_search_requests, o.cost_nano_usd, clock_timestamp()
		from spend.open_requests o join spend.logs l on l.log_id = o.log_id
		where l.settler = @settler and l.closed_at is null
		order by o.started_at, o.request_id`,
		pgx.StrictNamedArgs{"settler": settler})
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*ledger.Settlement, error) {
		s := &ledger.Settlement{Status: ledger.Abandoned, Estimated: true}
		var tagText []byte
		var held, cost money.NanoUSD
		var u pricing.Usage
		err := row.Scan(&s.RequestID, &s.KeyID, &s.Token, &s.TeamID, &s.UserID, &s.ModelGroup, &s.Model, &s.ModelID, &s.PriceVersion,
			&s.Stream, &s.StartedAt, &tagText, &s.UserAgent, &s.Client, &held, &s.Tokens, &s.MessageID,
			&u.InputTokens, &u.OutputTokens, &u.CacheReadTokens, &u.CacheWrite5mTokens,
			&u.CacheWrite1hTokens, &u.WebSearchRequests, &cost, &s.EndedAt)
		if err != nil {
			return nil, err
		}
		s.Hold, s.Cost, s.Usage = held, cost, u
		if err := json.Unmarshal(tagText, &s.Tags); err != nil {
			return nil, fmt.Errorf("tags of %s: %w", s.RequestID, err)
		}
		return s, nil
	})
}

// CloseLogs closes the logs that this one has settled completely.
func (s *Store) CloseLogs(ctx context.Context, logID int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.db.Exec(ctx, `
		update spend.logs l set closed_at = clock_timestamp()
		where l.settler = @log_id and l.closed_at is null
		  and not exists (select from spend.open_requests o where o.log_id = l.log_id)`,
		pgx.StrictNamedArgs{"log_id": logID})
	if err != nil {
		return explain("close settled logs", err)
	}
	return nil
}
