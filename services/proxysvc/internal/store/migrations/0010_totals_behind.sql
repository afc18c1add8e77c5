-- Totals are kept a few seconds behind: a batch writes its rows alone, and what several of
-- them add to an account is added once. Readers add what is not counted yet.

-- How far account_totals has each log. A log that keeps its totals itself, as those of
-- releases before this one do, has no row here, nor has one that ended and is counted.
create table spend.counted (
  log_id     bigint primary key,
  seq        bigint not null default 0 constraint counted_seq_not_negative check (seq >= 0),
  counted_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- uncounted sums what the rows that are not counted yet add to the totals of accounts of
-- one kind: of those that are named, or of all. Such rows are found by their place in a
-- log, however many the planner takes them for.
create function spend.uncounted(p_kind text, p_ids text[])
returns table (id text, day date, requests bigint, failed_requests bigint, cost_nano_usd bigint, input_tokens bigint, output_tokens bigint,
  cache_read_input_tokens bigint, cache_write_5m_input_tokens bigint, cache_write_1h_input_tokens bigint, web_search_requests bigint)
language plpgsql stable set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
declare
  length bigint := (select sum(l.last_seq - c.seq) from spend.counted c join spend.logs l using (log_id) where l.last_seq > c.seq);
begin
  if length is null then
    return;
  end if;
  if p_kind = 'key' and cardinality(p_ids) < least(100, length / 10) then -- a new key has no rows: that is seen at once
    p_ids := array(select i from unnest(p_ids) i where exists (select from spend.spend_logs where key_id = i));
    if p_ids = '{}' then
      return;
    end if;
  end if;
  return query
  select r.id, r.day, count(*) filter (where r.adjusts = ''), count(*) filter (where r.adjusts = '' and r.status <> 'completed'),
    sum(r.cost_nano_usd)::bigint, sum(r.input_tokens)::bigint, sum(r.output_tokens)::bigint, sum(r.cache_read_input_tokens)::bigint,
    sum(r.cache_write_5m_input_tokens)::bigint, sum(r.cache_write_1h_input_tokens)::bigint, sum(r.web_search_requests)::bigint
  from spend.counted c join spend.logs l using (log_id),
    lateral (
      select s.*, case p_kind when 'key' then key_id when 'model' then model when 'team' then nullif(team_id, '')
          when 'user' then nullif(user_id, '') when 'team_model' then nullif(team_id, '') || E'\n' || model end as id
      from spend.spend_logs s where s.log_id = l.log_id and s.seq > c.seq and s.seq <= l.last_seq and p_kind <> 'tag'
      union all
      select s.*, tag
      from spend.spend_logs s, lateral (select distinct e.tag from jsonb_array_elements_text(s.request_tags) e (tag)) e
      where s.log_id = l.log_id and s.seq > c.seq and s.seq <= l.last_seq and p_kind = 'tag' offset 0) r
  where l.last_seq > c.seq and r.id is not null and (p_ids is null or r.id = any(p_ids))
  group by r.id, r.day;
end $$;

-- count_rows counts the rows that have come to a log since it was last called, and
-- says how many these are; 0 also when somebody else is at it.
create function spend.count_rows(p_log_id bigint) returns bigint
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_from bigint;
  v_to   bigint;
begin
  select seq into v_from from spend.counted where log_id = p_log_id for update skip locked;
  if not found then
    return 0;
  end if;
  select last_seq into v_to from spend.logs where log_id = p_log_id;
  if v_to > v_from then
    with fresh as materialized (
      select day, key_id, team_id, user_id, model, request_tags, adjusts = '' as is_request, adjusts = '' and status <> 'completed' as has_failed,
        cost_nano_usd, input_tokens, output_tokens, cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens,
        web_search_requests
      from spend.spend_logs where log_id = p_log_id and seq > v_from and seq <= v_to),
    uses as (
      select
        case when grouping(key_id) = 0 then 'key' when grouping(user_id) = 0 then 'user' when grouping(team_id) = 1 then 'model'
          when grouping(model) = 1 then 'team' else 'team_model' end as kind,
        case when grouping(key_id) = 0 then key_id when grouping(user_id) = 0 then nullif(user_id, '') when grouping(team_id) = 1 then model
          when grouping(model) = 1 then nullif(team_id, '') else nullif(team_id, '') || E'\n' || model end as id,
        day, count(*) filter (where is_request) as requests, count(*) filter (where has_failed) as failed, sum(cost_nano_usd) as cost,
        sum(input_tokens) as input, sum(output_tokens) as output, sum(cache_read_input_tokens) as cache_read,
        sum(cache_write_5m_input_tokens) as write_5m, sum(cache_write_1h_input_tokens) as write_1h, sum(web_search_requests) as searches
      from fresh group by grouping sets ((day, key_id), (day, user_id), (day, model), (day, team_id), (day, team_id, model))
      union all
      select 'tag', v.tag, day, count(*) filter (where is_request), count(*) filter (where has_failed), sum(cost_nano_usd),
        sum(input_tokens), sum(output_tokens), sum(cache_read_input_tokens),
        sum(cache_write_5m_input_tokens), sum(cache_write_1h_input_tokens), sum(web_search_requests)
      from fresh, lateral (select distinct e.tag from jsonb_array_elements_text(request_tags) e (tag)) v
      where request_tags <> '[]' group by v.tag, day)
    insert into spend.account_totals as t (log_id, kind, id, day, requests, failed_requests, cost_nano_usd, input_tokens, output_tokens,
      cache_read_input_tokens, cache_write_5m_input_tokens, cache_write_1h_input_tokens, web_search_requests)
    select p_log_id, kind, id, day, requests, failed, cost, input, output, cache_read, write_5m, write_1h, searches
    from uses where id is not null
    on conflict (kind, id, day, log_id) do update set
      requests = t.requests + excluded.requests,
      failed_requests = t.failed_requests + excluded.failed_requests,
      cost_nano_usd = t.cost_nano_usd + excluded.cost_nano_usd,
      input_tokens = t.input_tokens + excluded.input_tokens,
      output_tokens = t.output_tokens + excluded.output_tokens,
      cache_read_input_tokens = t.cache_read_input_tokens + excluded.cache_read_input_tokens,
      cache_write_5m_input_tokens = t.cache_write_5m_input_tokens + excluded.cache_write_5m_input_tokens,
      cache_write_1h_input_tokens = t.cache_write_1h_input_tokens + excluded.cache_write_1h_input_tokens,
      web_search_requests = t.web_search_requests + excluded.web_search_requests;
  end if;
  update spend.counted set seq = v_to, counted_at = clock_timestamp() where log_id = p_log_id;
  delete from spend.counted c using spend.logs l
  where c.log_id = p_log_id and l.log_id = p_log_id and (l.closed_at is not null or l.fenced_at is not null) and l.last_seq = v_to;
  return v_to - v_from;
end $$;

-- in_totals says whether spent_since reads the totals, which can only tell days.
create function spend.in_totals(p_kind text, p_from timestamptz) returns boolean
language sql stable as $$
  select p_kind in ('key', 'team') and (p_from = '-infinity' or p_from = date_trunc('day', p_from, 'UTC'))
$$;

-- counted_since is spent_since without what the totals lack yet.
alter function spend.spent_since(text, text, timestamptz) rename to counted_since;

create function spend.spent_since(p_kind text, p_id text, p_from timestamptz) returns bigint
language plpgsql stable as $$
begin
  if not spend.in_totals(p_kind, p_from) then
    return spend.counted_since(p_kind, p_id, p_from);
  end if;
  return spend.counted_since(p_kind, p_id, p_from)
    + (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.uncounted(p_kind, array[p_id])
       where p_from = '-infinity' or day >= (p_from at time zone 'UTC')::date);
end $$;

-- spent_of is spent_since for many accounts, in their order: what is not counted yet is
-- read once for all of them. Without an instant it is all that an account has spent.
create function spend.spent_of(p_kinds text[], p_ids text[], p_from timestamptz[]) returns table (n bigint, spent bigint)
language sql stable as $$
  with asked as (
    select * from unnest(p_kinds, p_ids, p_from) with ordinality a (kind, id, since, n)),
  tail as materialized (
    select k.kind, u.id, u.day, u.cost_nano_usd as cost
    from (select kind, array_agg(distinct id) as ids from asked group by kind) k, lateral spend.uncounted(k.kind, k.ids) u)
  select a.n,
    case when a.since is null
      then (select coalesce(sum(t.cost_nano_usd), 0)::bigint from spend.account_totals t where t.kind = a.kind and t.id = a.id)
      else spend.counted_since(a.kind, a.id, a.since) end
    + case when a.since is null or spend.in_totals(a.kind, a.since)
      then (select coalesce(sum(cost), 0)::bigint from tail t
            where t.kind = a.kind and t.id = a.id
              and (a.since is null or a.since = '-infinity' or t.day >= (a.since at time zone 'UTC')::date))
      else 0 end
  from asked a
$$;

-- A day leaves when all of its rows are in the totals.
create or replace function spend.detach_day(p_day date) returns boolean
language plpgsql as $$
declare
  name   text := 'spend_logs_' || to_char(p_day, 'YYYYMMDD');
  behind boolean;
begin
  perform set_config('lock_timeout', '2s', true);
  if not exists (select from pg_inherits i where i.inhrelid = to_regclass('spend.' || name)
                 and i.inhparent = 'spend.spend_logs'::regclass) then
    return false;
  end if;
  execute format('lock table spend.%I in share mode', name);
  execute format('select exists (select from spend.counted c join spend.%I r on r.log_id = c.log_id and r.seq > c.seq)', name) into behind;
  if behind then
    return false;
  end if;
  execute format('insert into spend.detached (day, log_id, rows, last_seq, cost_nano_usd)
                  select %L, log_id, count(*), max(seq), sum(cost_nano_usd) from spend.%I group by log_id', p_day, name);
  execute format('alter table spend.spend_logs detach partition spend.%I', name);
  return true;
end $$;
