-- A replica keeps a slice of a budget for requests to come, and admits them by it without
-- asking the account.

-- Batches lock logs first, then the rest.
lock table spend.logs in access exclusive mode;

-- What a log's slice of an account holds, its requests in flight included: the account has
-- all of it as held. Rows of the log behind seq that ran in the slice are not in what the
-- account has spent.
create table spend.slices (
  kind           text not null,
  id             text not null,
  log_id         bigint not null,
  seq            bigint not null,
  held_nano_usd  bigint not null,
  open_requests  bigint not null,
  held_tokens    bigint not null,
  keep_for       interval not null, -- for how long its rest is held if the log is fenced
  primary key (kind, id, log_id)
) with (fillfactor = 50);
create index slices_log on spend.slices (log_id);

-- In the slices of which accounts a request ran: 1 its key's, 4 its team's.
alter table spend.spend_logs add column sliced smallint not null default 0;
alter table spend.open_requests add column sliced smallint not null default 0;

-- sliced_accounts are the accounts in whose slices a request ran.
create function spend.sliced_accounts(p_sliced smallint, p_key_id text, p_team_id text) returns table (kind text, id text)
language sql immutable as $$
  select 'key', p_key_id where p_sliced & 1 <> 0 union all select 'team', p_team_id where p_sliced & 4 <> 0
$$;

-- untold sums what was spent of the slices of accounts that those have not been told, by
-- rows that ended at an instant or later. Such rows are found by their place in a log,
-- however many the planner takes them for.
create function spend.untold(p_kinds text[], p_ids text[], p_from timestamptz[]) returns table (n bigint, spent bigint)
language plpgsql stable set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
begin
  return query
  select a.n, sum(r.cost_nano_usd)::bigint
  from unnest(p_kinds, p_ids, p_from) with ordinality a (kind, id, since, n)
    join spend.slices s on s.kind = a.kind and s.id = a.id
    join spend.spend_logs r on r.log_id = s.log_id and r.seq > s.seq and r.ended_at >= a.since
      and case s.kind when 'key' then r.sliced & 1 <> 0 and r.key_id = s.id else r.sliced & 4 <> 0 and r.team_id = s.id end
  group by a.n;
end $$;

-- end_slices gives back what a log has of accounts, and tells them what was spent of it. If
-- the log was fenced, its process may only be frozen: requests that ran in a slice, and of
-- which the ledger has nothing yet, must still fit the budget when it corrects that, so
-- the rest of the slice stays held for a while.
create function spend.end_slices(p_log_id bigint, p_keep boolean) returns void
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_from bigint := (select min(seq) from spend.slices where log_id = p_log_id);
begin
  if v_from is null then
    return;
  end if;
  perform pg_advisory_xact_lock_shared(hashtextextended('spend.accounts', 0)); -- as batches do
  with gone as (
    delete from spend.slices where log_id = p_log_id returning *),
  used as (
    select g.kind, g.id, sum(r.cost_nano_usd)::bigint as spent
    from spend.spend_logs r, spend.sliced_accounts(r.sliced, r.key_id, r.team_id) a
      join gone g on g.kind = a.kind and g.id = a.id
    where r.log_id = p_log_id and r.seq > v_from and r.seq > g.seq
    group by g.kind, g.id),
  running as (
    select a.kind, a.id, sum(o.held_nano_usd)::bigint as held, count(*) as open, sum(o.held_tokens)::bigint as tokens
    from spend.open_requests o, spend.sliced_accounts(o.sliced, o.key_id, o.team_id) a
    where o.log_id = p_log_id
    group by a.kind, a.id),
  change as (
    select kind, id, coalesce(u.spent, 0) as spent, g.keep_for,
      case when p_keep and g.keep_for > '0' then greatest(0, g.held_nano_usd - coalesce(u.spent, 0) - coalesce(o.held, 0)) else 0 end as rest,
      coalesce(o.held, 0) - g.held_nano_usd as held, coalesce(o.open, 0) - g.open_requests as open, coalesce(o.tokens, 0) - g.held_tokens as tokens
    from gone g left join used u using (kind, id) left join running o using (kind, id)),
  locked as (
    select c.* from spend.accounts a join change c on c.kind = a.kind and c.id = a.id order by a.kind, a.id for update of a),
  changed as (
    update spend.accounts a
    set spent_nano_usd = a.spent_nano_usd + c.spent, held_nano_usd = a.held_nano_usd + c.held + c.rest,
        open_requests = a.open_requests + c.open, held_tokens = a.held_tokens + c.tokens
    from locked c where a.kind = c.kind and a.id = c.id
    returning a.kind, a.id, c.spent, c.rest, c.keep_for),
  windows as (
    update spend.windows w
    set spent_nano_usd = case when w.resets_at > now() then w.spent_nano_usd else 0 end + c.spent,
        resets_at = case when w.resets_at > now() then w.resets_at else spend.window_end(w.duration, now()) end
    from changed c where w.kind = c.kind and w.id = c.id and c.spent <> 0)
  insert into spend.residuals (request_id, key_id, team_id, model_group, held_nano_usd, until)
  select format('slice of log %s: %s %s', p_log_id, kind, id), case kind when 'key' then id else '' end, case kind when 'team' then id else '' end,
    '', rest, now() + keep_for
  from changed where rest > 0;
  update spend.open_requests set sliced = 0 where log_id = p_log_id and sliced <> 0;
end $$;

-- A log that is fenced or closed has no slices.
create function spend.log_ended() returns trigger
language plpgsql as $$
begin
  if new.fenced_at is not null and old.fenced_at is null or new.closed_at is not null and old.closed_at is null then
    perform spend.end_slices(new.log_id, new.closed_at is null);
  end if;
  return null;
end $$;
create trigger log_ended after update of fenced_at, closed_at on spend.logs for each row execute function spend.log_ended();

-- ensure_accounts as before; what accounts have not been told yet of slices, a new window is
-- told with the rest.
create or replace function spend.ensure_accounts(p_kinds text[], p_ids text[], p_windows text[]) returns void
language plpgsql as $$
declare
  missing boolean[];
begin
  select array_agg(not exists (select from spend.accounts a where a.kind = c.kind and a.id = c.id)
           or exists (select from unnest(string_to_array(c.windows, ' ')) d where not exists
             (select from spend.windows w where w.kind = c.kind and w.id = c.id and w.duration = d)) order by c.n)
    into missing
    from unnest(p_kinds, p_ids, p_windows) with ordinality c (kind, id, windows, n);
  if not true = any(missing) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('spend.accounts', 0));
  with fresh as materialized (
    select distinct kind, id from unnest(p_kinds, p_ids, missing) c (kind, id, is_missing) where is_missing),
  numbered as materialized (select kind, id, row_number() over () as n from fresh)
  insert into spend.accounts (kind, id, spent_nano_usd, held_nano_usd, open_requests, held_tokens, made)
  select c.kind, c.id, s.spent,
         coalesce(o.held, 0) + coalesce((select sum(r.held_nano_usd) from spend.residuals r
           where spend.is_of(c.kind, c.id, r.key_id, r.team_id, r.model_group)), 0),
         coalesce(o.open, 0), coalesce(o.tokens, 0), coalesce((select max(made) from spend.accounts), 0) + 1
    from numbered c
    join spend.spent_of((select array_agg(kind order by n) from numbered), (select array_agg(id order by n) from numbered),
           (select array_agg('-infinity'::timestamptz) from numbered)) s on s.n = c.n
    left join (select v.kind, v.id, sum(held_nano_usd) as held, count(*) as open, sum(held_tokens) as tokens
                 from spend.open_requests, spend.bare_model(model_group) bare, lateral (
                   values ('key', key_id), ('key_model', key_id || E'\n' || bare),
                          ('team', team_id), ('team_model', team_id || E'\n' || bare)) v (kind, id)
                group by 1, 2) o on o.kind = c.kind and o.id = c.id
  on conflict do nothing;
  with fresh as materialized (
    select distinct c.kind, c.id, d as duration
    from unnest(p_kinds, p_ids, p_windows, missing) c (kind, id, windows, is_missing), unnest(string_to_array(c.windows, ' ')) d
    where is_missing),
  numbered as materialized (select *, row_number() over () as n from fresh),
  asked as materialized (
    select array_agg(kind order by n) as kinds, array_agg(id order by n) as ids,
      array_agg(spend.window_start(duration, now()) order by n) as since
    from numbered)
  insert into spend.windows (kind, id, duration, spent_nano_usd, resets_at)
  select c.kind, c.id, c.duration, s.spent - coalesce(u.spent, 0), spend.window_end(c.duration, now())
    from asked
    join lateral spend.spent_of(asked.kinds, asked.ids, asked.since) s on true
    join numbered c using (n)
    left join lateral spend.untold(asked.kinds, asked.ids, asked.since) u on u.n = c.n
  on conflict do nothing;
end $$;
