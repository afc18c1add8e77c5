-- Limits beyond a total budget: windows, tokens and requests a minute, single
-- models. And what a row says of its client, its cost and what it corrects.

alter table spend.accounts
  add column held_tokens     bigint not null default 0,
  add column minute          timestamptz not null default 'epoch', -- that the next two are of
  add column minute_requests bigint not null default 0,
  add column minute_tokens   bigint not null default 0;

-- What an account has spent in each window that one of its budgets has. A row
-- resets itself when it is next touched after resets_at.
create table spend.windows (
  kind           text not null,
  id             text not null,
  duration       text not null, -- LiteLLM's grammar
  spent_nano_usd bigint not null,
  resets_at      timestamptz not null,
  primary key (kind, id, duration)
);

alter table spend.open_requests
  add column held_tokens bigint not null default 0,
  add column client      jsonb not null default '{}';

alter table spend.spend_logs
  add column client         jsonb not null default '{}', -- ids and agent headers of the client
  add column cost_breakdown jsonb not null default '{}', -- nano-dollars by pool
  add column adjusts        text not null default '',    -- the request that this row corrects
  drop constraint spend_logs_status_known,
  add constraint spend_logs_status_known check (status in
    ('completed', 'failed', 'interrupted', 'aborted', 'stopped', 'abandoned', 'adjusted'));

create index spend_logs_adjusts on spend.spend_logs (adjusts) where adjusts <> '';

-- window_start and window_end are the edges of the window of LiteLLM's grammar in
-- which an instant lies: seconds, minutes and hours end at their multiples, a day
-- at midnight (UTC), seven days and a week on Monday, thirty days and a month on
-- the first; other days are counted from today's midnight.
create function spend.window_start(p_duration text, p_at timestamptz) returns timestamptz
language plpgsql immutable as $$
declare
  n    bigint := substring(p_duration from '^\d+')::bigint;
  unit text := substring(p_duration from '^\d+(mo|[smhdw])');
  step bigint;
  utc  timestamp := p_at at time zone 'UTC';
begin
  if unit is null or n < 1 then
    raise exception 'window % is not a duration', p_duration using errcode = 'LP002';
  end if;
  if unit in ('s', 'm', 'h') then
    step := n * case unit when 's' then 1 when 'm' then 60 else 3600 end;
    return to_timestamp(floor(extract(epoch from p_at) / step) * step);
  end if;
  if unit = 'mo' or unit = 'd' and n = 30 then
    return date_trunc('month', utc) at time zone 'UTC';
  end if;
  if unit = 'w' or n = 7 then
    return date_trunc('week', utc) at time zone 'UTC';
  end if;
  return date_trunc('day', utc) at time zone 'UTC';
end $$;

create function spend.window_end(p_duration text, p_at timestamptz) returns timestamptz
language plpgsql immutable as $$
declare
  n     bigint := substring(p_duration from '^\d+')::bigint;
  unit  text := substring(p_duration from '^\d+(mo|[smhdw])');
  start timestamp := spend.window_start(p_duration, p_at) at time zone 'UTC';
begin
  return (start + case
    when unit = 'mo' then make_interval(months => n::integer)
    when unit = 'd' and n = 30 then interval '1 month'
    when unit = 'w' then make_interval(weeks => n::integer)
    when unit = 'd' then make_interval(days => n::integer)
    else make_interval(secs => n * case unit when 's' then 1 when 'm' then 60 else 3600 end)
  end) at time zone 'UTC';
end $$;

-- bare_model is a model's name without its provider.
create function spend.bare_model(p_name text) returns text
language sql immutable as $$ select regexp_replace(p_name, '^(anthropic|openai)/', '') $$;

-- spent_since sums what an account has spent from an instant on: from the kept
-- totals where those can tell, else from the rows.
create function spend.spent_since(p_kind text, p_id text, p_from timestamptz) returns bigint
language plpgsql stable as $$
begin
  if p_kind in ('key', 'team') and (p_from = '-infinity' or p_from = date_trunc('day', p_from, 'UTC')) then
    return (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.account_totals
            where kind = p_kind and id = p_id and (p_from = '-infinity' or day >= (p_from at time zone 'UTC')::date));
  end if;
  if p_kind in ('key', 'key_model') then
    return (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.spend_logs
            where key_id = split_part(p_id, E'\n', 1) and ended_at >= p_from
              and (p_kind = 'key' or spend.bare_model(model_group) = split_part(p_id, E'\n', 2)));
  end if;
  return (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.spend_logs
          where team_id = split_part(p_id, E'\n', 1) and ended_at >= p_from
            and (p_kind = 'team' or spend.bare_model(model_group) = split_part(p_id, E'\n', 2)));
end $$;

-- is_of says whether a request of a key and a team for a model counts for an
-- account. The accounts of single models are named OWNER, a line break, MODEL.
create function spend.is_of(p_kind text, p_id text, p_key_id text, p_team_id text, p_model_group text) returns boolean
language sql immutable as $$
  select case p_kind
    when 'key' then p_key_id = p_id
    when 'team' then p_team_id = p_id
    when 'key_model' then p_key_id || E'\n' || spend.bare_model(p_model_group) = p_id
    else p_team_id || E'\n' || spend.bare_model(p_model_group) = p_id end
$$;

-- ensure_account makes the shared row of an account that got a limit, and the
-- rows of its windows. No batch runs meanwhile, so the sums are exact, and every
-- later batch finds them.
create function spend.ensure_account(p_kind text, p_id text, p_windows text[]) returns void
language plpgsql as $$
begin
  if exists (select from spend.accounts where kind = p_kind and id = p_id)
     and not exists (select from unnest(p_windows) d where not exists
       (select from spend.windows w where w.kind = p_kind and w.id = p_id and w.duration = d)) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('spend.accounts', 0));
  insert into spend.accounts (kind, id, spent_nano_usd, held_nano_usd, open_requests, held_tokens)
  select p_kind, p_id, spend.spent_since(p_kind, p_id, '-infinity'),
         coalesce(sum(o.held_nano_usd), 0), count(*), coalesce(sum(o.held_tokens), 0)
    from spend.open_requests o
   where spend.is_of(p_kind, p_id, o.key_id, o.team_id, o.model_group)
  on conflict do nothing;
  insert into spend.windows (kind, id, duration, spent_nano_usd, resets_at)
  select p_kind, p_id, d, spend.spent_since(p_kind, p_id, spend.window_start(d, now())), spend.window_end(d, now())
    from unnest(p_windows) d
  on conflict do nothing;
end $$;

-- Names this ledger, so that a journal is never replayed into another one.
create table spend.ledger (
  id     uuid not null default gen_random_uuid(),
  single boolean primary key default true constraint ledger_single check (single)
);
insert into spend.ledger default values;
