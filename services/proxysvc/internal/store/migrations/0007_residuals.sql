-- What stays held of requests whose replica was taken for dead: it may only be
-- frozen, and then it corrects what was estimated for it. Budgets must bear that.
create table spend.residuals (
  request_id    text primary key,
  key_id        text not null,
  team_id       text not null,
  model_group   text not null,
  held_nano_usd bigint not null check (held_nano_usd > 0),
  until         timestamptz not null
);
create index residuals_until on spend.residuals (until);
create index residuals_key on spend.residuals (key_id);
create index residuals_team on spend.residuals (team_id);

-- free_residuals gives back what is held for the given requests, which have been
-- corrected, and for those whose time is over.
create function spend.free_residuals(p_ids text[]) returns void
language plpgsql as $$
begin
  with gone as (
    delete from spend.residuals where request_id = any(p_ids) or until <= now()
    returning key_id, team_id, spend.bare_model(model_group) as model, held_nano_usd),
  per as (
    select v.kind, v.id, sum(held_nano_usd) as held
    from gone, lateral (values ('key', key_id), ('key_model', key_id || E'\n' || model),
                               ('team', team_id), ('team_model', team_id || E'\n' || model)) v (kind, id)
    group by 1, 2),
  locked as (
    select a.kind, a.id from spend.accounts a join per p on a.kind = p.kind and a.id = p.id
    order by a.kind, a.id for update of a)
  update spend.accounts a set held_nano_usd = a.held_nano_usd - p.held
  from per p join locked l on l.kind = p.kind and l.id = p.id
  where a.kind = p.kind and a.id = p.id;
end $$;

create or replace function spend.ensure_account(p_kind text, p_id text, p_windows text[]) returns void
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
         coalesce(sum(o.held_nano_usd), 0)
           + (select coalesce(sum(r.held_nano_usd), 0) from spend.residuals r
              where spend.is_of(p_kind, p_id, r.key_id, r.team_id, r.model_group)),
         count(*), coalesce(sum(o.held_tokens), 0)
    from spend.open_requests o
   where spend.is_of(p_kind, p_id, o.key_id, o.team_id, o.model_group)
  on conflict do nothing;
  insert into spend.windows (kind, id, duration, spent_nano_usd, resets_at)
  select p_kind, p_id, d, spend.spent_since(p_kind, p_id, spend.window_start(d, now())), spend.window_end(d, now())
    from unnest(p_windows) d
  on conflict do nothing;
end $$;
