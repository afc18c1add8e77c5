package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
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
	err := s.db.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		takeColumns(c.Conn().TypeMap())
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
	if err != nil {
		return explain("commit a batch", err)
	}
	return nil
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
	queueWrites(p, b, admitted)
	makeRoom(c.Conn(), perRow*(len(b.Settlements)+len(b.Admissions)))
	if err := p.send(ctx, c); err != nil {
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
	queueWrites(p, b, admitted)
	p.Queue(`commit`)
	makeRoom(c.Conn(), perRow*(len(b.Settlements)+len(b.Admissions)))
	return p.send(ctx, c)
}

// perRow is about what a settlement or an admission takes on the wire, in bytes, and
// perName what the name of an account does.
const (
	perRow  = 2 << 10
	perName = 256
)

// maxRoom is the longest buffer that a connection keeps.
const maxRoom = 1 << 20

// makeRoom has what is sent next written into a buffer that the connection keeps: pgx
// begins with a small one, would grow it over and over, and forgets it.
func makeRoom(c *pgx.Conn, n int) {
	kept, ok := c.PgConn().CustomData()["room"].(*room)
	if !ok {
		kept = &room{}
		c.PgConn().CustomData()["room"] = kept
	}
	kept.n = n
	c.PgConn().Frontend().Send(kept)
}

// room is a message of no bytes, and makes room for those behind it.
type room struct {
	n   int
	buf []byte
}

// Frontend, Decode and Encode make it a pgproto3.FrontendMessage.
func (*room) Frontend() {}

// Decode is never called.
func (*room) Decode([]byte) error { return nil }

// Encode appends nothing. What is sent is written before pgx has a buffer for more; should
// it go on with this one, that has room enough the next time.
func (r *room) Encode(buf []byte) ([]byte, error) {
	if cap(buf)-len(buf) >= r.n {
		return buf, nil
	}
	buf = append(slices.Grow(r.buf[:0], len(buf)+r.n), buf...)
	if cap(buf) <= maxRoom {
		r.buf = buf
	}
	return buf, nil
}

// queueAdvance begins the batch, and tells the transaction's instant, unless now is nil.
// All of its statements look rows up by their keys, and are to do so however small the
// tables were when they were planned: a plan is made once a session, perhaps on the first
// day.
func (s *Store) queueAdvance(p *pipeline, b *ledger.Batch, now *time.Time) {
	q := p.Queue(`
		select now(), spend.advance($1, $2, $3, $4), set_config('plan_cache_mode', 'force_generic_plan', true),
		  set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`,
		b.LogID, b.Number, len(b.Settlements), s.plain.round)
	if now != nil {
		q.QueryRow(func(row pgx.Row) error { return row.Scan(now, nil, nil, nil, nil, nil) })
	}
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
		queueOpen(p, b.LogID, admitted)
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
	p.Queue(`
		update spend.open_requests o set message_id = p.message_id, input_tokens = p.input, output_tokens = p.output,
		  cache_read_input_tokens = p.cache_read, cache_write_5m_input_tokens = p.write_5m, cache_write_1h_input_tokens = p.write_1h,
		  web_search_requests = p.searches, cost_nano_usd = p.cost
		from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
		  p (request_id, message_id, input, output, cache_read, write_5m, write_1h, searches, cost)
		where o.request_id = p.request_id`, c.args()...)
}

func queueOpen(p *pipeline, logID int64, admitted []*ledger.Admission) {
	c := p.columns(16)
	for _, a := range admitted {
		c.texts(a.RequestID, a.KeyID, a.Token, a.TeamID, a.UserID, clean(a.ModelGroup), clean(a.Model), a.ModelID, a.PriceVersion)
		c.boolean(a.Stream)
		c.instant(a.StartedAt)
		c.tags(a.Tags)
		c.texts(clean(a.UserAgent))
		c.bigints(int64(a.Hold), a.Tokens)
		c.facts(a.Client)
	}
	p.Queue(`
		insert into spend.open_requests (log_id, request_id, key_id, token, team_id, user_id, model_group, model, model_id,
		  price_version, stream, started_at, request_tags, user_agent, held_nano_usd, held_tokens, client)
		select $1, ($2::text[])[n], ($3::text[])[n], ($4::text[])[n], ($5::text[])[n], ($6::text[])[n], ($7::text[])[n], ($8::text[])[n],
		  ($9::text[])[n], ($10::text[])[n], ($11::boolean[])[n], ($12::timestamptz[])[n], ($13::text[])[n]::jsonb, ($14::text[])[n],
		  ($15::bigint[])[n], ($16::bigint[])[n], ($17::text[])[n]::jsonb
		from generate_series(1, $18::integer) n`,
		append(c.args(logID), c.len())...)
}

// queueSpend ends the settled requests: their open rows go, their spend rows
// come, numbered on from FirstSeq.
func queueSpend(p *pipeline, b *ledger.Batch) {
	ids := p.columns(1)
	c := p.columns(39)
	for i, s := range b.Settlements {
		if !s.Unadmitted {
			ids.texts(s.RequestID)
		}
		u := s.Usage
		c.date(day(s.EndedAt))
		c.bigints(b.FirstSeq + int64(i))
		c.texts(s.RequestID, clean(s.MessageID), clean(s.UpstreamRequestID), s.KeyID, s.Token, s.TeamID, s.UserID,
			clean(s.ModelGroup), clean(s.Model), s.ModelID, s.PriceVersion)
		c.boolean(s.Stream)
		c.instant(s.StartedAt)
		c.instant(s.FirstByteAt)
		c.instant(s.EndedAt)
		c.tags(s.Tags)
		c.texts(clean(s.UserAgent))
		c.bigints(u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens, u.WebSearchRequests)
		c.texts(clean(u.Speed), clean(u.InferenceGeo), clean(u.ServiceTier))
		c.bigints(int64(s.Cost))
		c.texts(string(s.Status))
		c.boolean(s.Estimated)
		c.texts(clean(s.StopReason))
		c.bigints(int64(s.HTTPStatus))
		c.texts(clean(s.ErrorType))
		c.bigints(int64(s.Retries), u.ReasoningTokens)
		c.facts(s.Client)
		c.amounts(s.Breakdown)
		c.texts(s.Adjusts)
	}
	if ids.len() > 0 {
		p.Queue(`delete from spend.open_requests where request_id = any($1::text[])`, ids.args()...)
	}
	p.Queue(`
		insert into spend.spend_logs (log_id, day, seq, request_id, message_id, upstream_request_id, key_id, token, team_id, user_id,
		  model_group, model, model_id, price_version, stream, started_at, first_byte_at, ended_at, request_tags, user_agent,
		  input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens,
		  web_search_requests, speed, inference_geo, service_tier, cost_nano_usd, status, estimated, stop_reason, http_status, error_type,
		  retries, reasoning_tokens, client, cost_breakdown, adjusts)
		select $1, ($2::date[])[n], ($3::bigint[])[n], ($4::text[])[n], ($5::text[])[n], ($6::text[])[n], ($7::text[])[n], ($8::text[])[n],
		  ($9::text[])[n], ($10::text[])[n], ($11::text[])[n], ($12::text[])[n], ($13::text[])[n], ($14::text[])[n],
		  ($15::boolean[])[n], ($16::timestamptz[])[n], ($17::timestamptz[])[n], ($18::timestamptz[])[n], ($19::text[])[n]::jsonb,
		  ($20::text[])[n], ($21::bigint[])[n], ($22::bigint[])[n], ($23::bigint[])[n], ($24::bigint[])[n], ($25::bigint[])[n],
		  ($26::bigint[])[n], ($27::text[])[n], ($28::text[])[n], ($29::text[])[n], ($30::bigint[])[n], ($31::text[])[n],
		  ($32::boolean[])[n], ($33::text[])[n], ($34::bigint[])[n]::integer, ($35::text[])[n], ($36::bigint[])[n]::integer,
		  ($37::bigint[])[n], ($38::text[])[n]::jsonb, ($39::text[])[n]::jsonb, ($40::text[])[n]
		from generate_series(1, $41::integer) n`,
		append(c.args(b.LogID), c.len())...)
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
