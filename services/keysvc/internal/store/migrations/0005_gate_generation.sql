-- The newest change of a team's gate that billing has told of; older ones that come
-- late are not followed.
alter table keys.teams add column gate_generation bigint not null default 0;
