-- A batch looks for the shared rows of all accounts of its requests, and most have none.
-- Each shared row says with which round it was made, so that a writer can keep in mind
-- which accounts have none, for as long as no round was made that it does not know.

-- Batches lock logs first, then accounts.
lock table spend.logs in access exclusive mode;

alter table spend.accounts add column made bigint not null default 0;
create index accounts_made on spend.accounts (made);

-- advance for a batch that leaves out accounts which had no shared row in a round: it
-- fails with LP003 when another one was made.
create function spend.advance(p_log_id bigint, p_batch bigint, p_rows bigint, p_made bigint) returns void
language plpgsql as $$
begin
  perform spend.advance(p_log_id, p_batch, p_rows);
  if p_made <> coalesce((select max(made) from spend.accounts), 0) then
    raise exception 'accounts were made since round %', p_made using errcode = 'LP003';
  end if;
end $$;

drop function spend.ensure_account(text, text);
drop function spend.ensure_account(text, text, text[]);

-- ensure_accounts makes the shared rows of accounts that got limits, and the rows of their
-- windows, whose names are separated by spaces. No batch runs meanwhile, so the sums are
-- exact, and every later batch finds the rows. Requests in flight are read once for all.
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
  numbered as materialized (select *, row_number() over () as n from fresh)
  insert into spend.windows (kind, id, duration, spent_nano_usd, resets_at)
  select c.kind, c.id, c.duration, s.spent, spend.window_end(c.duration, now())
    from numbered c
    join spend.spent_of((select array_agg(kind order by n) from numbered), (select array_agg(id order by n) from numbered),
           (select array_agg(spend.window_start(duration, now()) order by n) from numbered)) s on s.n = c.n
  on conflict do nothing;
end $$;
