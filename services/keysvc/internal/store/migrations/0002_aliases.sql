-- A key's own names for models.
alter table keys.keys add column aliases jsonb not null default '{}';
