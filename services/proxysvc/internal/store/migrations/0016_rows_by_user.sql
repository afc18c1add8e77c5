-- Rows of a user are found by its keys: an index by user would cost every request as much as
-- that by key, and mostly say the same.

-- Batches lock logs first, then spend_logs.
lock table spend.logs in access exclusive mode;

-- Which keys have rows of a user, by day. Counting keeps it.
create table spend.user_keys (
  user_id text not null,
  day     date not null,
  key_id  text not null,
  primary key (user_id, day, key_id)
);
insert into spend.user_keys
select distinct user_id, day, key_id from spend.spend_logs where user_id <> '';
analyze spend.user_keys;
drop index spend.spend_logs_user;

-- keys_of_user are the keys that have rows of a user, by day, those of rows that are not
-- counted yet included.
create function spend.keys_of_user(p_user_id text) returns table (day date, key_id text)
language plpgsql stable rows 10 set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
#variable_conflict use_column
begin
  return query
  select day, key_id from spend.user_keys where user_id = p_user_id
  union
  select r.day, r.key_id
  from spend.counted c join spend.logs l using (log_id)
    join spend.spend_logs r on r.log_id = l.log_id and r.seq > c.seq and r.seq <= l.last_seq
  where l.last_seq > c.seq and r.user_id = p_user_id;
end $$;

-- count_rows as before; rows that only differ in their numbers are summed once, and what
-- that leaves for each kind of account. The planner knows nothing of how many rows have
-- come: groups by hash and look-ups by index suit few and many.
create or replace function spend.count_rows(p_log_id bigint) returns bigint
language plpgsql set plan_cache_mode = force_generic_plan set work_mem = '32MB'
set enable_seqscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off as $$
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
    with parts as materialized (
      select day, key_id, user_id, team_id, model, count(*) filter (where request_tags <> '[]') as tagged,
        count(*) filter (where adjusts = '') as requests, count(*) filter (where adjusts = '' and status <> 'completed') as failed,
        spend.total(cost_nano_usd) as cost, spend.total(input_tokens) as input, spend.total(output_tokens) as output, spend.total(cache_read_input_tokens) as cache_read,
        spend.total(cache_write_5m_input_tokens) as write_5m, spend.total(cache_write_1h_input_tokens) as write_1h, spend.total(web_search_requests) as searches
      from spend.spend_logs where log_id = p_log_id and seq > v_from and seq <= v_to
      group by day, key_id, user_id, team_id, model),
    fresh_keys as ( -- in one order, for whoever else counts
      insert into spend.user_keys
      select distinct user_id, day, key_id from parts p
      where user_id <> '' and (select true from spend.user_keys u where u.user_id = p.user_id and u.day = p.day and u.key_id = p.key_id) is null
      order by user_id, day, key_id
      on conflict do nothing),
    uses as (
      select
        case when grouping(key_id) = 0 then 'key' when grouping(user_id) = 0 then 'user' when grouping(team_id) = 1 then 'model'
          when grouping(model) = 1 then 'team' else 'team_model' end as kind,
        case when grouping(key_id) = 0 then key_id when grouping(user_id) = 0 then nullif(user_id, '') when grouping(team_id) = 1 then model
          when grouping(model) = 1 then nullif(team_id, '') else nullif(team_id, '') || E'\n' || model end as id,
        day, spend.total(requests) as requests, spend.total(failed) as failed,
        spend.total(cost) as cost, spend.total(input) as input, spend.total(output) as output, spend.total(cache_read) as cache_read,
        spend.total(write_5m) as write_5m, spend.total(write_1h) as write_1h, spend.total(searches) as searches
      from parts
      group by grouping sets ((day, key_id), (day, user_id), (day, model), (day, team_id), (day, team_id, model))
      union all
      select 'tag', v.tag, day, count(*) filter (where adjusts = ''), count(*) filter (where adjusts = '' and status <> 'completed'),
        spend.total(cost_nano_usd), spend.total(input_tokens), spend.total(output_tokens), spend.total(cache_read_input_tokens),
        spend.total(cache_write_5m_input_tokens), spend.total(cache_write_1h_input_tokens), spend.total(web_search_requests)
      from spend.spend_logs, lateral (select distinct e.tag from jsonb_array_elements_text(request_tags) e (tag)) v
      where log_id = p_log_id and seq > v_from and seq <= v_to and request_tags <> '[]' and exists (select from parts where tagged > 0)
      group by v.tag, day)
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

-- detach_day as before; nobody looks for the day's rows any more.
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
  delete from spend.user_keys where day = p_day;
  execute format('alter table spend.spend_logs detach partition spend.%I', name);
  return true;
end $$;
