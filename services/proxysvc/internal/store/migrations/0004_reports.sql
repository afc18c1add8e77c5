-- What reports need, what leaves the ledger after its time, and LiteLLM's table
-- as a view.

alter table spend.account_totals add column failed_requests bigint not null default 0;

-- Days that were detached from spend_logs: their tables are kept beside it until
-- somebody archives or drops them, and these sums stay.
create table spend.detached (
  day           date not null,
  log_id        bigint not null,
  rows          bigint not null,
  last_seq      bigint not null,
  cost_nano_usd bigint not null,
  detached_at   timestamptz not null default clock_timestamp(),
  primary key (day, log_id)
);

-- detach_day takes a day's partition out of spend_logs, if it is older than the
-- given day; what it held is summed up first. It gives up soon where it would
-- have to wait for readers.
create function spend.detach_day(p_day date) returns boolean
language plpgsql as $$
declare
  name text := 'spend_logs_' || to_char(p_day, 'YYYYMMDD');
begin
  perform set_config('lock_timeout', '2s', true);
  if not exists (select from pg_inherits i where i.inhrelid = to_regclass('spend.' || name)
                 and i.inhparent = 'spend.spend_logs'::regclass) then
    return false;
  end if;
  execute format('lock table spend.%I in share mode', name);
  execute format('insert into spend.detached (day, log_id, rows, last_seq, cost_nano_usd)
                  select %L, log_id, count(*), max(seq), sum(cost_nano_usd) from spend.%I group by log_id', p_day, name);
  execute format('alter table spend.spend_logs detach partition spend.%I', name);
  return true;
end $$;

-- LiteLLM's table of spend, with its columns and their meaning: prompt_tokens
-- include what was read from and written to caches, money is in USD, times are
-- UTC without a zone. It is also public."LiteLLM_SpendLogs" where the role may
-- make that.
create view spend."LiteLLM_SpendLogs" as
select
  request_id, case when adjusts = '' then 'anthropic_messages' else 'adjustment' end as call_type,
  token as api_key, cost_nano_usd / 1e9::double precision as spend,
  (input_tokens + cache_read_input_tokens + cache_write_5m_input_tokens + cache_write_1h_input_tokens + output_tokens) as total_tokens,
  (input_tokens + cache_read_input_tokens + cache_write_5m_input_tokens + cache_write_1h_input_tokens) as prompt_tokens,
  output_tokens as completion_tokens,
  started_at at time zone 'UTC' as "startTime", ended_at at time zone 'UTC' as "endTime",
  (extract(epoch from ended_at - started_at) * 1000)::bigint as request_duration_ms,
  first_byte_at at time zone 'UTC' as "completionStartTime",
  model, model_id, model_group,
  case when model like 'claude%' then 'anthropic' else 'openai' end as custom_llm_provider,
  '' as api_base, user_id as "user",
  jsonb_build_object(
    'user_api_key', token, 'user_api_key_team_id', nullif(team_id, ''), 'user_api_key_user_id', nullif(user_id, ''),
    'usage_object', jsonb_build_object('input_tokens', input_tokens, 'output_tokens', output_tokens,
      'cache_read_input_tokens', cache_read_input_tokens,
      'cache_creation_input_tokens', cache_write_5m_input_tokens + cache_write_1h_input_tokens),
    'additional_usage_values', jsonb_build_object('cache_read_input_tokens', cache_read_input_tokens,
      'cache_creation_input_tokens', cache_write_5m_input_tokens + cache_write_1h_input_tokens),
    'cost_breakdown', cost_breakdown, 'status', case when status in ('completed', 'adjusted') then 'success' else 'failure' end,
    'error_information', case when error_type = '' then null else
      jsonb_build_object('error_code', http_status::text, 'error_class', error_type) end,
    'attempted_retries', retries, 'estimated', estimated, 'client', client) as metadata,
  'None' as cache_hit, 'Cache OFF' as cache_key, request_tags, nullif(team_id, '') as team_id,
  null::text as organization_id, client ->> 'end_user' as end_user, null::text as requester_ip_address,
  '{}'::jsonb as messages, '{}'::jsonb as response, '{}'::jsonb as proxy_server_request,
  coalesce(client ->> 'session_id', nullif(user_id, '')) as session_id,
  case when status in ('completed', 'adjusted') then 'success' else 'failure' end as status,
  null::text as mcp_namespaced_tool_name, null::text as agent_id, request_id as litellm_call_id
from spend.spend_logs;

-- publish_view makes public."LiteLLM_SpendLogs", for readers of LiteLLM's
-- database; it says why when it may not.
create function spend.publish_view() returns text
language plpgsql as $$
begin
  if to_regclass('public."LiteLLM_SpendLogs"') is null then
    execute 'create view public."LiteLLM_SpendLogs" as select * from spend."LiteLLM_SpendLogs"';
  end if;
  return '';
exception when insufficient_privilege or invalid_schema_name then
  return sqlerrm;
end $$;
