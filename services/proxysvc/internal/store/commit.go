package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Commit writes a batch. Without limits to decide on it is one round trip: one
// pipeline, which Postgres runs as one transaction. With limits the shared rows
// are locked, in the order of their names, and read first.
func (s *Store) Commit(ctx context.Context, b *ledger.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !b.HasLimits() {
		p := &pgx.Batch{}
		queueAdvance(p, b)
		queueWrites(p, b, b.Decide(nil))
		if err := s.db.SendBatch(ctx, p).Close(); err != nil {
			return explain("commit a batch", err)
		}
		return nil
	}
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		accounts, err := lockAccounts(ctx, tx, b)
		if err != nil {
			return err
		}
		p := &pgx.Batch{}
		queueWrites(p, b, b.Decide(accounts))
		return tx.SendBatch(ctx, p).Close()
	})
	if err != nil {
		return explain("commit a batch", err)
	}
	return nil
}

func queueAdvance(p *pgx.Batch, b *ledger.Batch) {
	p.Queue(`select spend.advance($1, $2, $3)`, b.LogID, b.Number, len(b.Settlements))
}

// lockAccounts begins the batch and returns the limited accounts that it
// touches, as they are after its settlements.
func lockAccounts(ctx context.Context, tx pgx.Tx, b *ledger.Batch) (map[ledger.AccountID]*ledger.Account, error) {
	var kinds, ids []string
	for _, id := range b.Limited() {
		kinds, ids = append(kinds, id.Kind), append(ids, id.ID)
	}
	p := &pgx.Batch{}
	queueAdvance(p, b)
	accounts := map[ledger.AccountID]*ledger.Account{}
	p.Queue(`
		select a.kind, a.id, a.spent_nano_usd, a.held_nano_usd, a.open_requests
		from spend.accounts a join unnest($1::text[], $2::text[]) w (kind, id) on a.kind = w.kind and a.id = w.id
		order by a.kind, a.id for update of a`, kinds, ids).Query(func(rows pgx.Rows) error {
		var id ledger.AccountID
		var a ledger.Account
		_, err := pgx.ForEachRow(rows, []any{&id.Kind, &id.ID, &a.Spent, &a.Held, &a.Open}, func() error {
			copied := a
			accounts[id] = &copied
			return nil
		})
		return err
	})
	if err := tx.SendBatch(ctx, p).Close(); err != nil {
		return nil, err
	}
	for id, d := range b.Deltas(nil) {
		if a := accounts[id]; a != nil {
			a.Spent, a.Held, a.Open = a.Spent+d.Spent, a.Held+d.Held, a.Open+d.Open
		}
	}
	return accounts, nil
}

// queueWrites queues everything that a decided batch writes. Accounts come
// first, so that batches lock them in one order.
func queueWrites(p *pgx.Batch, b *ledger.Batch, admitted []*ledger.Admission) {
	queueAccounts(p, b.Deltas(admitted))
	if len(b.Settlements) > 0 {
		queueSpend(p, b)
		queueTotals(p, b)
	}
	if len(admitted) > 0 {
		queueOpen(p, b.LogID, admitted)
	}
	for _, progress := range b.Progress {
		u := progress.Usage
		p.Queue(`
			update spend.open_requests set message_id = $2, input_tokens = $3, output_tokens = $4,
			  cache_read_input_tokens = $5, cache_write_5m_input_tokens = $6, cache_write_1h_input_tokens = $7,
			  web_search_requests = $8, cost_nano_usd = $9
			where request_id = $1`,
			progress.RequestID, clean(progress.MessageID), u.InputTokens, u.OutputTokens,
			u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens, u.WebSearchRequests, progress.Cost)
	}
}

// queueAccounts changes the shared rows of those accounts that have one.
func queueAccounts(p *pgx.Batch, deltas map[ledger.AccountID]ledger.Account) {
	if len(deltas) == 0 {
		return
	}
	var kinds, ids []string
	var spent, held, open []int64
	for id, d := range deltas {
		kinds, ids = append(kinds, id.Kind), append(ids, id.ID)
		spent, held, open = append(spent, int64(d.Spent)), append(held, int64(d.Held)), append(open, d.Open)
	}
	p.Queue(`
		with change as (
		  select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) c (kind, id, spent, held, open)),
		locked as (
		  select a.kind, a.id from spend.accounts a join change c on a.kind = c.kind and a.id = c.id
		  order by a.kind, a.id for update of a)
		update spend.accounts a
		set spent_nano_usd = a.spent_nano_usd + c.spent, held_nano_usd = a.held_nano_usd + c.held,
		    open_requests = a.open_requests + c.open
		from change c join locked l on l.kind = c.kind and l.id = c.id
		where a.kind = c.kind and a.id = c.id`, kinds, ids, spent, held, open)
}

func queueOpen(p *pgx.Batch, logID int64, admitted []*ledger.Admission) {
	c := newColumns(14)
	for _, a := range admitted {
		c.add(a.RequestID, a.KeyID, a.Token, a.TeamID, a.UserID, clean(a.ModelGroup), clean(a.Model), a.ModelID,
			a.PriceVersion, a.Stream, a.StartedAt, tags(a.Tags), clean(a.UserAgent), int64(a.Hold))
	}
	p.Queue(`
		insert into spend.open_requests (log_id, request_id, key_id, token, team_id, user_id, model_group, model, model_id,
		  price_version, stream, started_at, request_tags, user_agent, held_nano_usd)
		select $1, r.* from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
		  $10::text[], $11::boolean[], $12::timestamptz[], $13::jsonb[], $14::text[], $15::bigint[]) r`,
		append([]any{logID}, c.args()...)...)
}

// queueSpend ends the settled requests: their open rows go, their spend rows
// come, numbered on from FirstSeq.
func queueSpend(p *pgx.Batch, b *ledger.Batch) {
	ids := make([]string, 0, len(b.Settlements))
	c := newColumns(34)
	for i, s := range b.Settlements {
		ids = append(ids, s.RequestID)
		var firstByte *time.Time
		if !s.FirstByteAt.IsZero() {
			firstByte = &s.FirstByteAt
		}
		u := s.Usage
		c.add(day(s.EndedAt), b.FirstSeq+int64(i), s.RequestID, clean(s.MessageID), clean(s.UpstreamRequestID),
			s.KeyID, s.Token, s.TeamID, s.UserID, clean(s.ModelGroup), clean(s.Model), s.ModelID, s.PriceVersion, s.Stream,
			s.StartedAt, firstByte, s.EndedAt, tags(s.Tags), clean(s.UserAgent),
			u.InputTokens, u.OutputTokens, u.CacheReadTokens, u.CacheWrite5mTokens, u.CacheWrite1hTokens, u.WebSearchRequests,
			clean(u.Speed), clean(u.InferenceGeo), clean(u.ServiceTier), int64(s.Cost), string(s.Status), s.Estimated,
			clean(s.StopReason), int32(s.HTTPStatus), clean(s.ErrorType)) // three digits
	}
	p.Queue(`delete from spend.open_requests where request_id = any($1::text[])`, ids)
	p.Queue(`
		insert into spend.spend_logs (log_id, day, seq, request_id, message_id, upstream_request_id, key_id, token, team_id, user_id,
		  model_group, model, model_id, price_version, stream, started_at, first_byte_at, ended_at, request_tags, user_agent,
		  input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens,
		  web_search_requests, speed, inference_geo, service_tier, cost_nano_usd, status, estimated, stop_reason, http_status, error_type)
		select $1, r.* from unnest($2::date[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
		  $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::boolean[], $16::timestamptz[], $17::timestamptz[],
		  $18::timestamptz[], $19::jsonb[], $20::text[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[],
		  $26::bigint[], $27::text[], $28::text[], $29::text[], $30::bigint[], $31::text[], $32::boolean[], $33::text[],
		  $34::integer[], $35::text[]) r`,
		append([]any{b.LogID}, c.args()...)...)
}

type totalKey struct {
	ledger.AccountID
	day string
}

// queueTotals adds the settled requests to the totals of their accounts, one
// row an account and day.
func queueTotals(p *pgx.Batch, b *ledger.Batch) {
	type total struct{ requests, cost, in, out, read, w5m, w1h, searches int64 }
	sums := map[totalKey]*total{}
	for _, s := range b.Settlements {
		for _, id := range s.Accounts() {
			id.ID = clean(id.ID)
			k := totalKey{id, day(s.EndedAt)}
			t := sums[k]
			if t == nil {
				t = &total{}
				sums[k] = t
			}
			u := s.Usage
			t.requests++
			t.cost += int64(s.Cost)
			t.in, t.out, t.read = t.in+u.InputTokens, t.out+u.OutputTokens, t.read+u.CacheReadTokens
			t.w5m, t.w1h, t.searches = t.w5m+u.CacheWrite5mTokens, t.w1h+u.CacheWrite1hTokens, t.searches+u.WebSearchRequests
		}
	}
	c := newColumns(11)
	for k, t := range sums {
		c.add(k.Kind, k.ID, k.day, t.requests, t.cost, t.in, t.out, t.read, t.w5m, t.w1h, t.searches)
	}
	p.Queue(`
		insert into spend.account_totals as t (log_id, kind, id, day, requests, cost_nano_usd, input_tokens, output_tokens,
		  cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests)
		select $1, r.* from unnest($2::text[], $3::text[], $4::date[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
		  $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[]) r
		on conflict (kind, id, day, log_id) do update set
		  requests = t.requests + excluded.requests,
		  cost_nano_usd = t.cost_nano_usd + excluded.cost_nano_usd,
		  input_tokens = t.input_tokens + excluded.input_tokens,
		  output_tokens = t.output_tokens + excluded.output_tokens,
		  cache_read_input_tokens = t.cache_read_input_tokens + excluded.cache_read_input_tokens,
		  cache_write_5m_input_tokens = t.cache_write_5m_input_tokens + excluded.cache_write_5m_input_tokens,
		  cache_write_1h_input_tokens = t.cache_write_1h_input_tokens + excluded.cache_write_1h_input_tokens,
		  web_search_requests = t.web_search_requests + excluded.web_search_requests`,
		append([]any{b.LogID}, c.args()...)...)
}

// columns turns rows into one array a column, for unnest.
type columns [][]any

func newColumns(n int) columns { return make(columns, n) }

func (c columns) add(values ...any) {
	for i, v := range values {
		c[i] = append(c[i], v)
	}
}

func (c columns) args() []any {
	out := make([]any, len(c))
	for i, column := range c {
		out[i] = column
	}
	return out
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func tags(t []string) string {
	cleaned := make([]string, 0, len(t))
	for _, tag := range t {
		cleaned = append(cleaned, clean(tag))
	}
	text, err := json.Marshal(slices.Clip(cleaned))
	if err != nil {
		return "[]" // cannot happen: strings always marshal
	}
	return string(text)
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
