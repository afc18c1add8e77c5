package store

import (
	"context"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// lockAccounts begins the batch and returns the limited accounts that it
// touches, as they are after its settlements, and the transaction's instant.
func (s *Store) lockAccounts(ctx context.Context, tx pgx.Tx, b *ledger.Batch) (map[ledger.AccountID]*ledger.Account, time.Time, error) {
	var kinds, ids []string
	asked := b.Deltas(b.Admissions, s.plain.lacks)
	for id := range asked {
		kinds, ids = append(kinds, id.Kind), append(ids, clean(id.ID))
	}
	var now time.Time
	accounts := map[ledger.AccountID]*ledger.Account{}
	p := &pipeline{}
	s.queueAdvance(p, b)
	p.Queue(`select now()`).QueryRow(func(row pgx.Row) error { return row.Scan(&now) })
	p.Queue(`
		select a.kind, a.id, a.spent_nano_usd, a.held_nano_usd, a.open_requests, a.held_tokens,
		  a.minute, a.minute_requests, a.minute_tokens
		from spend.accounts a join unnest($1::text[], $2::text[]) w (kind, id) on a.kind = w.kind and a.id = w.id
		order by a.kind, a.id for update of a`, kinds, ids).Query(func(rows pgx.Rows) error { return scanAccounts(rows, accounts) })
	p.Queue(`
		update spend.windows w set spent_nano_usd = 0, resets_at = spend.window_end(w.duration, now())
		from unnest($1::text[], $2::text[]) a (kind, id)
		where w.kind = a.kind and w.id = a.id and w.resets_at <= now()`, kinds, ids)
	p.Queue(`
		select w.kind, w.id, w.duration, w.spent_nano_usd, w.resets_at
		from spend.windows w join unnest($1::text[], $2::text[]) a (kind, id) on w.kind = a.kind and w.id = a.id`,
		kinds, ids).Query(func(rows pgx.Rows) error { return scanWindows(rows, accounts) })
	if err := p.send(ctx, tx); err != nil {
		return nil, now, err
	}
	shared := func(id ledger.AccountID) bool { return accounts[id] != nil }
	for id, d := range b.Deltas(nil, shared) {
		accounts[id].Apply(d, now)
	}
	s.plain.learn(maps.Keys(asked), shared)
	return accounts, now, nil
}

func scanAccounts(rows pgx.Rows, accounts map[ledger.AccountID]*ledger.Account) error {
	var id ledger.AccountID
	var a ledger.Account
	_, err := pgx.ForEachRow(rows, []any{
		&id.Kind, &id.ID, &a.Spent, &a.Held, &a.Open, &a.HeldTokens,
		&a.Minute, &a.MinuteRequests, &a.MinuteTokens,
	}, func() error {
		copied := a
		copied.Windows = map[string]ledger.Window{}
		accounts[id] = &copied
		return nil
	})
	return err
}

func scanWindows(rows pgx.Rows, accounts map[ledger.AccountID]*ledger.Account) error {
	var id ledger.AccountID
	var name string
	var w ledger.Window
	_, err := pgx.ForEachRow(rows, []any{&id.Kind, &id.ID, &name, &w.Spent, &w.ResetsAt}, func() error {
		if a := accounts[id]; a != nil {
			a.Windows[name] = w
		}
		return nil
	})
	return err
}

// queueAccounts changes the shared rows of those accounts that have one, and
// those of their windows. What is spent counts for the window that it is settled
// in; a minute or a window that is over begins anew. Those that have one are told in
// shared, unless it is nil.
func queueAccounts(p *pipeline, deltas map[ledger.AccountID]ledger.Delta, shared map[ledger.AccountID]bool) {
	if len(deltas) == 0 {
		return
	}
	c := p.columns(8)
	for id, d := range deltas {
		c.texts(id.Kind, clean(id.ID))
		c.bigints(int64(d.Spent), int64(d.Held), d.Open, d.HeldTokens, d.Requests, d.Tokens)
	}
	p.Queue(`
		with change as (
		  select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
		    c (kind, id, spent, held, open, tokens_held, requests, tokens)),
		locked as (
		  select a.kind, a.id, greatest(a.minute, date_trunc('minute', now())) as minute
		  from spend.accounts a join change c on a.kind = c.kind and a.id = c.id
		  order by a.kind, a.id for update of a),
		changed as (
		  update spend.accounts a
		  set spent_nano_usd = a.spent_nano_usd + c.spent, held_nano_usd = a.held_nano_usd + c.held,
		      open_requests = a.open_requests + c.open, held_tokens = a.held_tokens + c.tokens_held,
		      minute = l.minute,
		      minute_requests = case when a.minute = l.minute then a.minute_requests else 0 end + c.requests,
		      minute_tokens = case when a.minute = l.minute then a.minute_tokens else 0 end + c.tokens
		  from change c join locked l on l.kind = c.kind and l.id = c.id
		  where a.kind = c.kind and a.id = c.id
		  returning a.kind, a.id, c.spent),
		windows as (
		  update spend.windows w
		  set spent_nano_usd = case when w.resets_at > now() then w.spent_nano_usd else 0 end + c.spent,
		      resets_at = case when w.resets_at > now() then w.resets_at else spend.window_end(w.duration, now()) end
		  from changed c where w.kind = c.kind and w.id = c.id and c.spent <> 0)
		select kind, id from locked`, c.args()...).Query(func(rows pgx.Rows) error {
		var id ledger.AccountID
		_, err := pgx.ForEachRow(rows, []any{&id.Kind, &id.ID}, func() error {
			if shared != nil {
				shared[id] = true
			}
			return nil
		})
		return err
	})
}
