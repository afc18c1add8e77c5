package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Commit writes a batch whole or not at all. Without limits to decide on it is
// one round trip: one pipeline, which Postgres runs as one transaction. With limits it
// is two: the shared rows are locked, in the order of their names, and read first.
func (s *Store) Commit(ctx context.Context, b *ledger.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.commitOnce(ctx, b)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && isStale(e) {
		err = s.commitOnce(ctx, b) // in another session
	}
	if err != nil {
		return explain("commit a batch", err)
	}
	return nil
}

func (s *Store) commitOnce(ctx context.Context, b *ledger.Batch) error {
	return s.db.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		for {
			err := s.commit(ctx, c, b)
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != newRound {
				return err
			}
			if err := s.plain.update(ctx, c); err != nil {
				return err
			}
		}
	})
}

// commit writes a batch that leaves out the accounts which are known to be plain.
func (s *Store) commit(ctx context.Context, c *pgxpool.Conn, b *ledger.Batch) error {
	if b.HasLimits() {
		err := s.commitDecided(ctx, c, b)
		if err != nil {
			_, _ = c.Exec(ctx, `rollback`) // else the pool drops the connection
		}
		return err
	}
	admitted := b.Decide(nil, time.Time{})
	deltas := b.Deltas(admitted, s.plain.lacks)
	shared := make(map[ledger.AccountID]bool, len(deltas))
	p := &pipeline{}
	s.queueAdvance(p, b, nil)
	queueAccounts(p, deltas, shared)
	queueSlices(p, b)
	queueWrites(p, b, admitted)
	if err := p.send(ctx, c.Conn()); err != nil {
		return err
	}
	s.plain.learn(maps.Keys(deltas), func(id ledger.AccountID) bool { return shared[id] })
	return nil
}

func (s *Store) commitDecided(ctx context.Context, c *pgxpool.Conn, b *ledger.Batch) error {
	accounts, now, err := s.lockAccounts(ctx, c, b)
	if err != nil {
		return err
	}
	admitted := b.Decide(accounts, now)
	p := &pipeline{}
	queueLocked(p, accounts)
	queueSlices(p, b)
	queueWrites(p, b, admitted)
	p.queue(`commit`, nil)
	return p.send(ctx, c.Conn())
}

// queueAdvance begins the batch, and tells the transaction's instant, unless now is nil.
// All of its statements look rows up by their keys, and are to do so however small the
// tables were when they were planned: a plan is made once a session, perhaps on the first
// day.
func (s *Store) queueAdvance(p *pipeline, b *ledger.Batch, now *time.Time) {
	p.queue(`
		select now(), spend.advance($1, $2, $3, $4), set_config('plan_cache_mode', 'force_generic_plan', true),
		  set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`,
		func(r row) {
			if now != nil {
				*now = r.instant(0)
			}
		}, b.LogID, b.Number, len(b.Settlements), s.plain.round)
}

// queueWrites queues what a decided batch writes behind its accounts, which come first,
// so that batches lock them in one order.
func queueWrites(p *pipeline, b *ledger.Batch, admitted []*ledger.Admission) {
	if len(b.Settlements) > 0 {
		queueSpend(p, b)
		queueThreads(p, b)
		queueResiduals(p, b)
	}
	if len(admitted) > 0 {
		queueOpen(p, b, admitted)
	}
	queueSpent(p, b)
	queueProgress(p, b.Progress)
}

// queueProgress notes what running requests have used so far. Of a request that has told
// twice the last word counts.
func queueProgress(p *pipeline, told []*ledger.Progress) {
	if len(told) == 0 {
		return
	}
	c := p.columns(9)
	met := make(map[string]bool, len(told))
	for _, progress := range slices.Backward(told) {
		if met[progress.RequestID] {
			continue
		}
		met[progress.RequestID] = true
		u := progress.Usage
		c.texts(progress.RequestID, clean(progress.MessageID))
		c.bigints(u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens, u.WebSearchRequests, int64(progress.Cost))
	}
	p.queue(`
		update spend.open_requests o set message_id = p.message_id, input_tokens = p.input, output_tokens = p.output,
		  cache_read_input_tokens = p.cache_read, cache_write_5m_input_tokens = p.write_5m, cache_write_1h_input_tokens = p.write_1h,
		  web_search_requests = p.searches, cost_nano_usd = p.cost
		from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
		  p (request_id, message_id, input, output, cache_read, write_5m, write_1h, searches, cost)
		where o.request_id = p.request_id`, nil, c.args()...)
}

func queueOpen(p *pipeline, b *ledger.Batch, admitted []*ledger.Admission) {
	c := p.columns(17)
	for _, a := range admitted {
		c.texts(a.RequestID, a.KeyID, a.Token, a.TeamID, a.UserID, clean(a.ModelGroup), clean(a.Model), a.ModelID, a.PriceVersion)
		c.boolean(a.Stream)
		c.instant(a.StartedAt)
		c.tags(a.Tags)
		c.texts(clean(a.UserAgent))
		c.bigints(int64(a.Hold), a.Tokens)
		c.facts(a.Client)
		c.smallint(int16(a.Slices(b.LogID)))
	}
	p.queue(`
		insert into spend.open_requests (log_id, request_id, key_id, token, team_id, user_id, model_group, model, model_id,
		  price_version, stream, started_at, request_tags, user_agent, held_nano_usd, held_tokens, client, sliced)
		select $1, ($2::text[])[n], ($3::text[])[n], ($4::text[])[n], ($5::text[])[n], ($6::text[])[n], ($7::text[])[n], ($8::text[])[n],
		  ($9::text[])[n], ($10::text[])[n], ($11::boolean[])[n], ($12::timestamptz[])[n], ($13::jsonb[])[n], ($14::text[])[n],
		  ($15::bigint[])[n], ($16::bigint[])[n], ($17::jsonb[])[n], ($18::smallint[])[n]
		from generate_series(1, $19::integer) n`, nil,
		append(c.args(b.LogID), c.len())...)
}

// queueSpend ends the settled requests: their open rows go, their spend rows
// come, numbered on from FirstSeq.
func queueSpend(p *pipeline, b *ledger.Batch) {
	ids := p.columns(1)
	r := p.rows(41)
	for i, s := range b.Settlements {
		if !s.Unadmitted {
			ids.texts(s.RequestID)
		}
		u := s.Usage
		r.bigints(b.LogID, b.FirstSeq+int64(i))
		r.date(day(s.EndedAt))
		r.texts(s.RequestID, clean(s.MessageID), clean(s.UpstreamRequestID), s.KeyID, s.Token, s.TeamID, s.UserID,
			clean(s.ModelGroup), clean(s.Model), s.ModelID, s.PriceVersion)
		r.boolean(s.Stream)
		r.instant(s.StartedAt)
		r.instant(s.FirstByteAt)
		r.instant(s.EndedAt)
		r.tags(s.Tags)
		r.texts(clean(s.UserAgent))
		r.bigints(u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens, u.WebSearchRequests)
		r.texts(clean(u.Speed), clean(u.InferenceGeo), clean(u.ServiceTier))
		r.bigints(int64(s.Cost))
		r.texts(string(s.Status))
		r.boolean(s.Estimated)
		r.texts(clean(s.StopReason))
		r.integer(int32(s.HTTPStatus))
		r.texts(clean(s.ErrorType))
		r.integer(int32(s.Retries))
		r.bigints(u.ReasoningTokens)
		r.facts(s.Client)
		r.amounts(s.Breakdown)
		r.texts(s.Adjusts)
		r.smallint(int16(s.Slices(b.LogID)))
	}
	if ids.len() > 0 {
		p.queue(`delete from spend.open_requests where request_id = any($1::text[])`, nil, ids.args()...)
	}
	p.copy(`
		copy spend.spend_logs (log_id, seq, day, request_id, message_id, upstream_request_id, key_id, token, team_id, user_id,
		  model_group, model, model_id, price_version, stream, started_at, first_byte_at, ended_at, request_tags, user_agent,
		  input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens,
		  web_search_requests, speed, inference_geo, service_tier, cost_nano_usd, status, estimated, stop_reason, http_status, error_type,
		  retries, reasoning_tokens, client, cost_breakdown, adjusts, sliced)
		from stdin (format binary)`, r)
}

// clean makes a text that came from outside fit for Postgres: no NUL, valid
// UTF-8, at most 512 bytes.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
	if len(s) <= 512 {
		return s
	}
	s = s[:512]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
