-- count_rows as before, but for how it goes over its rows: twice, and not by a copy of them
-- that spills, and with memory enough to add up some ten thousands of keys at once.
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
        sum(cost_nano_usd) as cost, sum(input_tokens) as input, sum(output_tokens) as output, sum(cache_read_input_tokens) as cache_read,
        sum(cache_write_5m_input_tokens) as write_5m, sum(cache_write_1h_input_tokens) as write_1h, sum(web_search_requests) as searches
      from spend.spend_logs where log_id = p_log_id and seq > v_from and seq <= v_to
      group by grouping sets ((day, key_id), (day, user_id), (day, model), (day, team_id), (day, team_id, model))
      union all
      select 'tag', v.tag, day, count(*) filter (where adjusts = ''), count(*) filter (where adjusts = '' and status <> 'completed'),
        sum(cost_nano_usd), sum(input_tokens), sum(output_tokens), sum(cache_read_input_tokens),
        sum(cache_write_5m_input_tokens), sum(cache_write_1h_input_tokens), sum(web_search_requests)
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

