package store

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// sums are the columns of a Use behind its id and day.
const sums = `sum(requests)::bigint, sum(failed_requests)::bigint, sum(cost_nano_usd)::bigint, sum(input_tokens)::bigint,
	sum(output_tokens)::bigint, sum(cache_read_input_tokens)::bigint, sum(cache_write_5m_input_tokens)::bigint,
	sum(cache_write_1h_input_tokens)::bigint, sum(web_search_requests)::bigint`

// uses are the lines of accounts of a kind, those with the given ids or all, by day: the
// totals, and what these lack yet.
func uses(kind, ids string) string {
	const columns = `id, day, requests, failed_requests, cost_nano_usd, input_tokens, output_tokens,
		cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests`
	return `(
		select ` + columns + ` from spend.account_totals where kind = ` + kind + ` and (` + ids + ` is null or id = any(` + ids + `))
		union all
		select ` + columns + ` from spend.uncounted(` + kind + `, ` + ids + `)) uses`
}

// into are the places of those columns.
func into(u *ledger.Use) []any {
	t := &u.Usage
	return []any{
		&u.Requests, &u.Failed, &u.Cost, &t.InputTokens, &t.OutputTokens,
		&t.CacheReadTokens, &t.CacheWrite5mTokens, &t.CacheWrite1hTokens, &t.WebSearchRequests,
	}
}

func scanUse(row pgx.CollectableRow) (ledger.Use, error) {
	var u ledger.Use
	return u, row.Scan(append([]any{&u.ID, &u.Day}, into(&u)...)...)
}

// Uses sums the totals of accounts by day and id.
func (s *Store) Uses(ctx context.Context, q ledger.UseQuery) ([]ledger.Use, error) {
	ids := slices.Clone(q.IDs)
	for i := range ids {
		ids[i] = clean(ids[i])
	}
	rows, _ := s.db.Query(ctx, `
		select id, day, `+sums+`
		from `+uses("@kind", "@ids::text[]")+`
		where (@from::date is null or day >= @from::date) and (@to::date is null or day <= @to::date)
		group by id, day order by day, id collate "C"`,
		pgx.StrictNamedArgs{"kind": q.Kind, "ids": ids, "from": dateOrNull(q.From), "to": dateOrNull(q.To)})
	uses, err := pgx.CollectRows(rows, scanUse)
	if err != nil {
		return nil, explain("sum the use of accounts", err)
	}
	return uses, nil
}

// TeamModels sums what teams used of each model by day. The ids are TEAM, a line
// break, MODEL; they are made of the models that there are, since the order of
// the index depends on the database's collation.
func (s *Store) TeamModels(ctx context.Context, teams []string, days ledger.Days) ([]ledger.Use, error) {
	rows, _ := s.db.Query(ctx, `
		with recursive models as (
		  (select id from spend.account_totals where kind = 'model' order by id limit 1)
		  union all
		  select (select t.id from spend.account_totals t where t.kind = 'model' and t.id > m.id order by t.id limit 1)
		  from models m where m.id is not null),
		wanted as materialized (
		  select array(select team || E'\n' || m.id from unnest(@teams::text[]) team cross join (
		    select id from models where id is not null union select id from spend.uncounted('model', null)) m) as ids)
		select id, day, `+sums+`
		from `+uses("'team_model'", "(select ids from wanted)::text[]")+`
		where (@from::date is null or day >= @from::date) and (@to::date is null or day <= @to::date)
		group by id, day order by day, id collate "C"`,
		pgx.StrictNamedArgs{"teams": teams, "from": dateOrNull(days.From), "to": dateOrNull(days.To)})
	uses, err := pgx.CollectRows(rows, scanUse)
	if err != nil {
		return nil, explain("sum the models of teams", err)
	}
	return uses, nil
}

// Top sums the totals of a kind over days and returns the dearest accounts.
func (s *Store) Top(ctx context.Context, kind string, days ledger.Days, limit int) ([]ledger.Use, error) {
	rows, _ := s.db.Query(ctx, `
		select id, `+sums+`
		from `+uses("@kind", "null::text[]")+`
		where (@from::date is null or day >= @from::date) and (@to::date is null or day <= @to::date)
		group by id order by sum(cost_nano_usd) desc, id limit @limit`,
		pgx.StrictNamedArgs{"kind": kind, "from": dateOrNull(days.From), "to": dateOrNull(days.To), "limit": limit})
	uses, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Use, error) {
		var u ledger.Use
		return u, row.Scan(append([]any{&u.ID}, into(&u)...)...)
	})
	if err != nil {
		return nil, explain("find the dearest accounts", err)
	}
	return uses, nil
}

// Slices splits what a key or a user used by day, model and secret. It reads the
// rows of that account, by index.
func (s *Store) Slices(ctx context.Context, of ledger.AccountID, days ledger.Days) ([]ledger.Slice, error) {
	args := pgx.StrictNamedArgs{"from": dateOrNull(days.From), "to": dateOrNull(days.To)}
	where := ofUser
	if of.Kind == ledger.KindKey {
		where, args["key_id"] = "key_id = @key_id", clean(of.ID)
	} else {
		args["user_id"] = clean(of.ID)
	}
	rows, _ := s.db.Query(ctx, `
		select day, model, model_group, key_id, token, user_id,
		  count(*) filter (where adjusts = ''), count(*) filter (where adjusts = '' and status <> 'completed'),
		  sum(cost_nano_usd)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cache_read_input_tokens)::bigint,
		  sum(cache_write_5m_input_tokens)::bigint, sum(cache_write_1h_input_tokens)::bigint, sum(web_search_requests)::bigint
		from spend.spend_logs
		where `+where+` and (@from::date is null or day >= @from::date) and (@to::date is null or day <= @to::date)
		group by day, model, model_group, key_id, token, user_id order by day, model, model_group, token`,
		args)
	slices, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Slice, error) {
		var l ledger.Slice
		return l, row.Scan(append([]any{&l.Day, &l.ID, &l.ModelGroup, &l.KeyID, &l.Token, &l.UserID}, into(&l.Use)...)...)
	})
	if err != nil {
		return nil, explain("split the use of an account", err)
	}
	return slices, nil
}

// Tokens finds a token of each key, from one row of it; a key without rows in
// the ledger's table has none.
func (s *Store) Tokens(ctx context.Context, keyIDs []string) (map[string]string, error) {
	rows, _ := s.db.Query(ctx, `
		with fresh as materialized (select id, day from spend.uncounted('key', @ids))
		select i.id, r.token
		from unnest(@ids::text[]) i (id)
		cross join lateral (
		  select max(day) as day from (
		    (select day from spend.account_totals where kind = 'key' and id = i.id order by day desc limit 1)
		    union all select day from fresh where id = i.id) days) d
		cross join lateral (select token from spend.spend_logs where day = d.day and key_id = i.id limit 1) r`,
		pgx.StrictNamedArgs{"ids": keyIDs})
	tokens := make(map[string]string, len(keyIDs))
	var id, token string
	_, err := pgx.ForEachRow(rows, []any{&id, &token}, func() error {
		tokens[id] = token
		return nil
	})
	if err != nil {
		return nil, explain("find tokens", err)
	}
	return tokens, nil
}

// Balances tells what accounts have spent in their windows, in the order of the
// queries.
func (s *Store) Balances(ctx context.Context, now time.Time, queries []ledger.BalanceQuery) ([]ledger.Balance, error) {
	kinds, ids, windows := make([]string, 0, len(queries)), make([]string, 0, len(queries)), make([]string, 0, len(queries))
	for _, q := range queries {
		kinds, ids, windows = append(kinds, q.Kind), append(ids, clean(q.ID)), append(windows, q.Window)
	}
	rows, _ := s.db.Query(ctx, `
		with windows as materialized (
		  select w as name, place, case when w <> '' then spend.window_start(w, @now) end as starts
		  from unnest(@windows::text[]) with ordinality q (w, place))
		select s.spent, case when w.name <> '' then spend.window_end(w.name, @now) end
		from spend.spent_of(@kinds, @ids, (select array_agg(starts order by place) from windows)) s join windows w on w.place = s.n
		order by s.n`,
		pgx.StrictNamedArgs{"kinds": kinds, "ids": ids, "windows": windows, "now": now})
	balances, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Balance, error) {
		var b ledger.Balance
		var ends *time.Time
		err := row.Scan(&b.Spent, &ends)
		if ends != nil {
			b.ResetsAt = ends.UTC()
		}
		return b, err
	})
	if err != nil {
		return nil, explain("read what accounts have spent", err)
	}
	return balances, nil
}
