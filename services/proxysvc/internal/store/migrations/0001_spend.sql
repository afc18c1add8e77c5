-- The ledger. Rows of spend_logs are never updated or deleted.

-- One row a proxysvc process: its part of the ledger.
create table spend.logs (
  log_id       bigint generated always as identity primary key,
  instance     text not null,
  batch        bigint not null default 0,
  last_seq     bigint not null default 0,
  started_at   timestamptz not null default clock_timestamp(),
  heartbeat_at timestamptz not null default clock_timestamp(),
  fenced_at    timestamptz,
  settler      bigint references spend.logs (log_id),
  closed_at    timestamptz,
  constraint logs_fenced_has_settler check ((fenced_at is null) = (settler is null)),
  constraint logs_counters_not_negative check (batch >= 0 and last_seq >= 0)
);
create index logs_open on spend.logs (heartbeat_at) where closed_at is null;
create index logs_settler on spend.logs (settler) where closed_at is null;

-- Requests in flight, with the money held for them and the usage seen so far.
create table spend.open_requests (
  request_id      text primary key,
  log_id          bigint not null references spend.logs (log_id),
  key_id          text not null,
  token           text not null,
  team_id         text not null,
  user_id         text not null,
  model_group     text not null,
  model           text not null,
  model_id        text not null,
  price_version   text not null,
  stream          boolean not null,
  started_at      timestamptz not null,
  request_tags    jsonb not null,
  user_agent      text not null,
  held_nano_usd   bigint not null constraint open_requests_held_not_negative check (held_nano_usd >= 0),
  message_id      text not null default '',
  input_tokens                bigint not null default 0,
  output_tokens               bigint not null default 0,
  cache_read_input_tokens     bigint not null default 0,
  cache_write_5m_input_tokens bigint not null default 0,
  cache_write_1h_input_tokens bigint not null default 0,
  web_search_requests         bigint not null default 0,
  cost_nano_usd               bigint not null default 0
);
create index open_requests_log on spend.open_requests (log_id);
create index open_requests_key on spend.open_requests (key_id);
create index open_requests_team on spend.open_requests (team_id);

-- One row an upstream request that ended. seq is 1, 2, 3, … within a log.
create table spend.spend_logs (
  day             date not null,
  log_id          bigint not null,
  seq             bigint not null constraint spend_logs_seq_positive check (seq > 0),
  request_id      text not null,
  message_id      text not null,
  upstream_request_id text not null,
  key_id          text not null,
  token           text not null,
  team_id         text not null,
  user_id         text not null,
  model_group     text not null,
  model           text not null,
  model_id        text not null,
  price_version   text not null,
  stream          boolean not null,
  started_at      timestamptz not null,
  first_byte_at   timestamptz,
  ended_at        timestamptz not null,
  request_tags    jsonb not null,
  user_agent      text not null,
  input_tokens                bigint not null,
  output_tokens               bigint not null,
  cache_read_input_tokens     bigint not null,
  cache_write_5m_input_tokens bigint not null,
  cache_write_1h_input_tokens bigint not null,
  web_search_requests         bigint not null,
  speed           text not null,
  inference_geo   text not null,
  service_tier    text not null,
  cost_nano_usd   bigint not null,
  status          text not null,
  estimated       boolean not null,
  stop_reason     text not null,
  http_status     integer not null,
  error_type      text not null,
  primary key (log_id, seq, day),
  constraint spend_logs_status_known check (status in ('completed', 'failed', 'interrupted', 'aborted', 'stopped', 'abandoned'))
) partition by range (day);
create index spend_logs_request on spend.spend_logs (request_id);
create index spend_logs_ended on spend.spend_logs (ended_at desc, log_id, seq);
create index spend_logs_team on spend.spend_logs (team_id, ended_at desc);
create index spend_logs_user on spend.spend_logs (user_id, ended_at desc);
create index spend_logs_key on spend.spend_logs (key_id, ended_at desc);
-- Takes what no day's partition takes; it should stay empty.
create table spend.spend_logs_default partition of spend.spend_logs default;

-- What each key, team, user and model used, by log and day. Only the log's own
-- writer changes its rows, so replicas never wait for each other.
create table spend.account_totals (
  kind            text not null,
  id              text not null,
  log_id          bigint not null,
  day             date not null,
  requests        bigint not null,
  cost_nano_usd   bigint not null,
  input_tokens                bigint not null,
  output_tokens               bigint not null,
  cache_read_input_tokens     bigint not null,
  cache_write_5m_input_tokens bigint not null,
  cache_write_1h_input_tokens bigint not null,
  web_search_requests         bigint not null,
  primary key (kind, id, day, log_id)
);

-- One shared row for each key or team that has a limit.
create table spend.accounts (
  kind           text not null,
  id             text not null,
  spent_nano_usd bigint not null,
  held_nano_usd  bigint not null,
  open_requests  bigint not null,
  primary key (kind, id),
  constraint accounts_held_not_negative check (held_nano_usd >= 0 and open_requests >= 0)
);

-- advance begins a batch: it moves the log on, or fails with LP001 when the log
-- is fenced or not where its writer believes it to be. Batches share the
-- advisory lock that ensure_account takes alone.
create function spend.advance(p_log_id bigint, p_batch bigint, p_rows bigint) returns void
language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('spend.accounts', 0));
  update spend.logs
     set batch = p_batch, last_seq = last_seq + p_rows, heartbeat_at = clock_timestamp()
   where log_id = p_log_id and batch = p_batch - 1 and fenced_at is null and closed_at is null;
  if not found then
    raise exception 'log % is fenced, or not at batch %', p_log_id, p_batch - 1 using errcode = 'LP001';
  end if;
end $$;

-- ensure_account makes the shared row of an account that got a limit. No batch
-- runs meanwhile, so the sums are exact, and every later batch finds the row.
create function spend.ensure_account(p_kind text, p_id text) returns void
language plpgsql as $$
begin
  perform 1 from spend.accounts where kind = p_kind and id = p_id;
  if found then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('spend.accounts', 0));
  insert into spend.accounts (kind, id, spent_nano_usd, held_nano_usd, open_requests)
  select p_kind, p_id,
         coalesce((select sum(cost_nano_usd) from spend.account_totals where kind = p_kind and id = p_id), 0),
         coalesce(sum(o.held_nano_usd), 0), count(*)
    from spend.open_requests o
   where case p_kind when 'key' then o.key_id else o.team_id end = p_id
  on conflict do nothing;
end $$;

-- ensure_partitions makes the partitions of p_days days from p_from on.
create function spend.ensure_partitions(p_from date, p_days integer) returns void
language plpgsql as $$
declare
  d date;
begin
  perform pg_advisory_xact_lock(hashtextextended('spend.partitions', 0));
  for d in select p_from + i from generate_series(0, p_days - 1) i loop
    if to_regclass('spend.spend_logs_' || to_char(d, 'YYYYMMDD')) is null then
      execute format('create table spend.%I partition of spend.spend_logs for values from (%L) to (%L)',
                     'spend_logs_' || to_char(d, 'YYYYMMDD'), d, d + 1);
    end if;
  end loop;
end $$;
