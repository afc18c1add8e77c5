package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// lockAccounts begins the batch and returns the limited accounts that it
// touches, as they are after its settlements, and the transaction's instant.
func (s *Store) lockAccounts(ctx context.Context, c *pgxpool.Conn, b *ledger.Batch) (map[ledger.AccountID]*ledger.Account, time.Time, error) {
	ids := b.Accounts(s.plain.lacks)
	locked := make([]*ledger.Account, len(ids)) // nil: it has no shared row
	var now time.Time
	p := &pipeline{}
	p.queue(`begin`, nil)
	s.queueAdvance(p, b, &now)
	if len(ids) > 0 {
		queueLock(p, ids, locked)
	}
	if err := p.send(ctx, c.Conn()); err != nil {
		return nil, now, err
	}
	accounts := make(map[ledger.AccountID]*ledger.Account, len(ids))
	for i, a := range locked {
		if a != nil {
			accounts[ids[i]] = a
		}
	}
	s.plain.learn(slices.Values(ids), func(id ledger.AccountID) bool { return accounts[id] != nil })
	b.Settle(accounts, now)
	return accounts, now, nil
}

// queueLock locks the shared rows of accounts and reads them, and those of their windows.
func queueLock(p *pipeline, ids []ledger.AccountID, locked []*ledger.Account) {
	names := p.columns(2)
	for _, id := range ids {
		names.texts(id.Kind, clean(id.Name()))
	}
	args := names.args()
	p.queue(`
		select w.n, a.spent_nano_usd, a.held_nano_usd, a.open_requests, a.held_tokens, a.minute, a.minute_requests, a.minute_tokens
		from spend.accounts a join unnest($1::text[], $2::text[]) with ordinality w (kind, id, n) on a.kind = w.kind and a.id = w.id
		order by a.kind, a.id for update of a`, func(r row) {
		locked[r.bigint(0)-1] = &ledger.Account{
			Spent: money.NanoUSD(r.bigint(1)), Held: money.NanoUSD(r.bigint(2)), Open: r.bigint(3), HeldTokens: r.bigint(4),
			Minute: r.instant(5), MinuteRequests: r.bigint(6), MinuteTokens: r.bigint(7),
		}
	}, args...)
	p.queue(`
		select a.n, w.duration, case when w.resets_at > now() then w.spent_nano_usd else 0 end,
		  case when w.resets_at > now() then w.resets_at else spend.window_end(w.duration, now()) end
		from spend.windows w join unnest($1::text[], $2::text[]) with ordinality a (kind, id, n) on w.kind = a.kind and w.id = a.id`,
		func(r row) {
			if a := locked[r.bigint(0)-1]; a != nil {
				a.Windows = append(a.Windows, ledger.Window{Name: r.text(1), Spent: money.NanoUSD(r.bigint(2)), ResetsAt: r.instant(3)})
			}
		}, args...)
}

// change are the arguments of the statements that change accounts.
const change = `unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
		    with ordinality c (kind, id, spent, held, open, tokens_held, requests, tokens, n)`

// changed is what these have in common: it changes the shared rows of accounts that are
// locked, and those of their windows. What is spent counts for the window that it is
// settled in; a minute or a window that is over begins anew.
const changed = `
		changed as (
		  update spend.accounts a
		  set spent_nano_usd = a.spent_nano_usd + c.spent, held_nano_usd = a.held_nano_usd + c.held,
		      open_requests = a.open_requests + c.open, held_tokens = a.held_tokens + c.tokens_held,
		      minute = greatest(a.minute, date_trunc('minute', now())),
		      minute_requests = case when a.minute >= date_trunc('minute', now()) then a.minute_requests else 0 end + c.requests,
		      minute_tokens = case when a.minute >= date_trunc('minute', now()) then a.minute_tokens else 0 end + c.tokens
		  from locked c where a.kind = c.kind and a.id = c.id
		  returning a.kind, a.id, c.spent),
		windows as (
		  update spend.windows w
		  set spent_nano_usd = case when w.resets_at > now() then w.spent_nano_usd else 0 end + c.spent,
		      resets_at = case when w.resets_at > now() then w.resets_at else spend.window_end(w.duration, now()) end
		  from changed c where w.kind = c.kind and w.id = c.id and c.spent <> 0)`

// queueAccounts changes those accounts that have a shared row, and tells them in shared.
func queueAccounts(p *pipeline, deltas map[ledger.AccountID]ledger.Delta, shared map[ledger.AccountID]bool) {
	if len(deltas) == 0 {
		return
	}
	c := p.columns(8)
	ids := make([]ledger.AccountID, 0, len(deltas))
	for id, d := range deltas {
		c.delta(id, d)
		ids = append(ids, id)
	}
	p.queue(`
		with locked as (
		  select c.* from spend.accounts a join `+change+` on a.kind = c.kind and a.id = c.id
		  order by a.kind, a.id for update of a),`+changed+`
		select n from locked`, func(r row) {
		shared[ids[r.bigint(0)-1]] = true
	}, c.args()...)
}

// queueLocked changes locked accounts by what the batch changed in them.
func queueLocked(p *pipeline, accounts map[ledger.AccountID]*ledger.Account) {
	c := p.columns(8)
	for id, a := range accounts {
		if a.Change != (ledger.Delta{}) {
			c.delta(id, a.Change)
		}
	}
	if c.len() > 0 {
		p.queue(`with locked as (select * from `+change+`),`+changed+` select 1`, nil, c.args()...)
	}
}

// delta adds a row of the arguments of a change.
func (v *values) delta(id ledger.AccountID, d ledger.Delta) {
	v.texts(id.Kind, clean(id.Name()))
	v.bigints(int64(d.Spent), int64(d.Held), d.Open, d.HeldTokens, d.Requests, d.Tokens)
}
