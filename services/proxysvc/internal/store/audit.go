package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Audit checks the ledger against itself, in one snapshot.
func (s *Store) Audit(ctx context.Context) (ledger.Audit, error) {
	var a ledger.Audit
	err := pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			select (select count(*) from spend.logs),
			  (select count(*) from spend.spend_logs) + (select coalesce(sum(rows), 0)::bigint from spend.detached),
			  (select coalesce(sum(cost_nano_usd), 0) from spend.spend_logs) + (select coalesce(sum(cost_nano_usd), 0) from spend.detached),
			  (select count(*) from spend.open_requests), (select coalesce(sum(held_nano_usd), 0) from spend.open_requests)`).
			Scan(&a.Logs, &a.Rows, &a.Cost, &a.OpenRequests, &a.Held)
		if err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `
			select id as team_id, sum(requests)::bigint as requests, sum(cost_nano_usd)::bigint as cost
			from `+uses("'team'", "null::text[]")+` group by id
			union all
			select '', count(*), sum(cost_nano_usd)::bigint from spend.spend_logs where team_id = '' having count(*) > 0
			order by team_id`)
		if a.Teams, err = pgx.CollectRows(rows, pgx.RowToStructByName[ledger.TeamSpend]); err != nil {
			return err
		}
		rows, _ = tx.Query(ctx, faults)
		a.Faults, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return a, explain("audit the ledger", err)
	}
	return a, nil
}

// faults lists every fault as a sentence.
const faults = `
with numbered as materialized (select *, row_number() over (order by kind, id) as n from spend.accounts),
asked as materialized (
  select array_agg(kind order by n) as kinds, array_agg(id order by n) as ids, array_agg('-infinity'::timestamptz) as since from numbered)
select format('log %s should have rows 1 to %s and has %s from %s to %s, and %s detached',
              l.log_id, l.last_seq, r.n, r.first, r.last, d.n)
from spend.logs l,
  lateral (select count(*) as n, min(seq) as first, max(seq) as last from spend.spend_logs where log_id = l.log_id) r,
  lateral (select coalesce(sum(rows), 0) as n, max(last_seq) as last from spend.detached where log_id = l.log_id) d
where r.n + d.n <> l.last_seq or greatest(r.last, d.last, 0) <> l.last_seq or d.n = 0 and coalesce(r.first, 1) <> 1
union all
select format('row %s of log %s belongs to no log', r.seq, r.log_id)
from spend.spend_logs r where not exists (select from spend.logs l where l.log_id = r.log_id)
union all
select format('request %s is on the ledger %s times', request_id, count(*))
from spend.spend_logs group by request_id having count(*) > 1
union all
select format('request %s is settled and still open', o.request_id)
from spend.open_requests o where exists (select from spend.spend_logs r where r.request_id = o.request_id)
union all
select format('%s %s: totals say %s nano-dollars on %s in log %s, the rows %s', coalesce(t.kind, r.kind), coalesce(t.id, r.id),
              t.cost_nano_usd, coalesce(t.day, r.day), coalesce(t.log_id, r.log_id), r.cost)
from spend.account_totals t
full join (
  select v.kind, v.id, log_id, day, sum(cost_nano_usd) as cost, count(*) filter (where adjusts = '') as requests
  from spend.spend_logs left join spend.counted c using (log_id), lateral (
    values ('key', key_id), ('team', team_id), ('user', user_id), ('model', model),
           ('team_model', case when team_id <> '' then team_id || E'\n' || model else '' end)
    union all
    select distinct 'tag', t from jsonb_array_elements_text(request_tags) t) v (kind, id)
  where (v.id <> '' or v.kind in ('key', 'model')) and (c.seq is null or spend_logs.seq <= c.seq)
  group by 1, 2, 3, 4) r on r.kind = t.kind and r.id = t.id and r.log_id = t.log_id and r.day = t.day
where (t.cost_nano_usd is distinct from r.cost or t.requests is distinct from r.requests)
  and not exists (select from spend.detached d where d.day = coalesce(t.day, r.day) and d.log_id = coalesce(t.log_id, r.log_id))
union all
select format('user %s has rows of key %s on %s, and is not found by it', user_id, key_id, day)
from (select distinct user_id, key_id, day from spend.spend_logs left join spend.counted c using (log_id)
      where user_id <> '' and (c.seq is null or spend_logs.seq <= c.seq)
      except select user_id, key_id, day from spend.user_keys) lost
union all
select format('%s %s: its account says %s spent, %s held and %s tokens for %s requests; the rows say %s, %s and %s for %s', a.kind, a.id,
              a.spent_nano_usd, a.held_nano_usd, a.held_tokens, a.open_requests, s.spent - coalesce(u.spent, 0), h.held, h.tokens, h.open)
from asked, lateral spend.spent_of(asked.kinds, asked.ids, asked.since) s
  join numbered a using (n)
  left join lateral spend.untold(asked.kinds, asked.ids, asked.since) u using (n),
  lateral (select coalesce(sum(held), 0) as held, coalesce(sum(tokens), 0) as tokens, coalesce(sum(open), 0) as open from (
    select o.held_nano_usd as held, o.held_tokens as tokens, 1 as open
    from spend.open_requests o where spend.is_of(a.kind, a.id, o.key_id, o.team_id, o.model_group)
      and not exists (select from spend.sliced_accounts(o.sliced, o.key_id, o.team_id) i where i.kind = a.kind and i.id = a.id)
    union all
    select r.held_nano_usd, 0, 0 from spend.residuals r where spend.is_of(a.kind, a.id, r.key_id, r.team_id, r.model_group)
    union all
    select l.held_nano_usd, l.held_tokens, l.open_requests from spend.slices l where l.kind = a.kind and l.id = a.id) h) h
where a.spent_nano_usd <> s.spent - coalesce(u.spent, 0) and (a.kind in ('key', 'team') or not exists (select from spend.detached))
  or a.held_nano_usd <> h.held or a.open_requests <> h.open or a.held_tokens <> h.tokens
union all
select format('log %s has a slice of %s %s, and has ended', log_id, kind, id)
from spend.slices join spend.logs l using (log_id) where l.fenced_at is not null or l.closed_at is not null`

func isNoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
