-- What every request writes, and counting it, costs less.

-- Batches lock logs first, then spend_logs. Rebuilding the indexes takes its time, in which
-- proxies go on as while Postgres is away.
lock table spend.logs in access exclusive mode;

-- Postgres reads a check anew for every statement, and each batch changes its log.
alter table spend.logs drop constraint logs_counters_not_negative, drop constraint logs_fenced_has_settler;

-- Newer rows come behind older ones, which splits pages less; what is newest is read backwards.
-- No two entries are the same but by accident, so it is of no use to look for those.
drop index spend.spend_logs_request, spend.spend_logs_ended, spend.spend_logs_team, spend.spend_logs_user, spend.spend_logs_key;
create index spend_logs_request on spend.spend_logs (request_id) with (deduplicate_items = off);
create index spend_logs_ended on spend.spend_logs (ended_at, log_id, seq) with (deduplicate_items = off);
create index spend_logs_team on spend.spend_logs (team_id, ended_at) with (deduplicate_items = off);
create index spend_logs_user on spend.spend_logs (user_id, ended_at) with (deduplicate_items = off);
create index spend_logs_key on spend.spend_logs (key_id, ended_at) with (deduplicate_items = off);

-- total is sum for bigints that fits one: sum goes by numeric.
create aggregate spend.total(bigint) (sfunc = int8pl, stype = bigint, initcond = '0', parallel = safe, combinefunc = int8pl);

-- Where every account is used between two countings all rows of a page change at once, in
-- place if there is room for as many.
alter table spend.account_totals_many set (fillfactor = 45);
alter table spend.account_totals_few set (fillfactor = 45);

-- count_rows as before, with that.
create or replace function spend.count_rows(p_log_id bigint) returns bigint
language plpgsql set plan_cache_mode = force_generic_plan set enable_seqscan = off set work_mem = '32MB' as $$
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
    with uses as (
      select
        case when grouping(key_id) = 0 then 'key' when grouping(user_id) = 0 then 'user' when grouping(team_id) = 1 then 'model'
          when grouping(model) = 1 then 'team' else 'team_model' end as kind,
        case when grouping(key_id) = 0 then key_id when grouping(user_id) = 0 then nullif(user_id, '') when grouping(team_id) = 1 then model
          when grouping(model) = 1 then nullif(team_id, '') else nullif(team_id, '') || E'\n' || model end as id,
        day, count(*) filter (where adjusts = '') as requests, count(*) filter (where adjusts = '' and status <> 'completed') as failed,
        spend.total(cost_nano_usd) as cost, spend.total(input_tokens) as input, spend.total(output_tokens) as output, spend.total(cache_read_input_tokens) as cache_read,
        spend.total(cache_write_5m_input_tokens) as write_5m, spend.total(cache_write_1h_input_tokens) as write_1h, spend.total(web_search_requests) as searches
      from spend.spend_logs where log_id = p_log_id and seq > v_from and seq <= v_to
      group by grouping sets ((day, key_id), (day, user_id), (day, model), (day, team_id), (day, team_id, model))
      union all
      select 'tag', v.tag, day, count(*) filter (where adjusts = ''), count(*) filter (where adjusts = '' and status <> 'completed'),
        spend.total(cost_nano_usd), spend.total(input_tokens), spend.total(output_tokens), spend.total(cache_read_input_tokens),
        spend.total(cache_write_5m_input_tokens), spend.total(cache_write_1h_input_tokens), spend.total(web_search_requests)
      from spend.spend_logs, lateral (select distinct e.tag from jsonb_array_elements_text(request_tags) e (tag)) v
      where log_id = p_log_id and seq > v_from and seq <= v_to and request_tags <> '[]'
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

