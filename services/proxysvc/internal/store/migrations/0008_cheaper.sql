-- What every request writes costs less.

-- Batches lock logs first, then open_requests.
lock table spend.logs in access exclusive mode;

-- A request in flight is looked up by its id, and by its log when that is taken over;
-- the others who ask read all of them, and there are few. A batch can only come
-- behind an advance of its log, so no foreign key is needed to say that the log is
-- there.
alter table spend.open_requests drop constraint open_requests_log_id_fkey;
drop index spend.open_requests_key;
drop index spend.open_requests_team;

-- Each batch moves heartbeat_at on, so no index may have it: else each has to change
-- all indexes of logs.
create index logs_unclosed on spend.logs (log_id) where closed_at is null;
drop index spend.logs_open;

-- Rows that change in place, by leaving space for that beside them.
alter table spend.logs set (fillfactor = 20);
alter table spend.accounts set (fillfactor = 50);
alter table spend.windows set (fillfactor = 50);
alter table spend.account_totals set (fillfactor = 70);

-- ensure_accounts is ensure_account for many: requests in flight are read once for
-- all of them. Windows are separated by spaces.
create function spend.ensure_accounts(p_kinds text[], p_ids text[], p_windows text[]) returns void
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
  insert into spend.accounts (kind, id, spent_nano_usd, held_nano_usd, open_requests, held_tokens)
  select c.kind, c.id, spend.spent_since(c.kind, c.id, '-infinity'),
         coalesce(o.held, 0) + coalesce((select sum(r.held_nano_usd) from spend.residuals r
           where spend.is_of(c.kind, c.id, r.key_id, r.team_id, r.model_group)), 0),
         coalesce(o.open, 0), coalesce(o.tokens, 0)
    from (select distinct kind, id from unnest(p_kinds, p_ids, missing) c (kind, id, is_missing) where is_missing) c
    left join (select v.kind, v.id, sum(held_nano_usd) as held, count(*) as open, sum(held_tokens) as tokens
                 from spend.open_requests, spend.bare_model(model_group) bare, lateral (
                   values ('key', key_id), ('key_model', key_id || E'\n' || bare),
                          ('team', team_id), ('team_model', team_id || E'\n' || bare)) v (kind, id)
                group by 1, 2) o on o.kind = c.kind and o.id = c.id
  on conflict do nothing;
  insert into spend.windows (kind, id, duration, spent_nano_usd, resets_at)
  select c.kind, c.id, d, spend.spent_since(c.kind, c.id, spend.window_start(d, now())), spend.window_end(d, now())
    from unnest(p_kinds, p_ids, p_windows, missing) c (kind, id, windows, is_missing), unnest(string_to_array(c.windows, ' ')) d
   where is_missing
  on conflict do nothing;
end $$;
