-- Virtual keys, their teams, the log of changes that watchers follow, and the audit.

create table keys.teams (
	team_id               text        not null,
	team_alias            text        not null,
	models                text[]      not null,
	max_budget_nano_usd   bigint,
	rpm_limit             bigint,
	tpm_limit             bigint,
	max_parallel_requests bigint,
	budget_duration       text        not null,
	metadata              jsonb       not null,
	status                text        not null,
	status_reason         text        not null,
	created_at            timestamptz not null,
	updated_at            timestamptz not null,
	constraint teams_pkey primary key (team_id),
	constraint teams_team_id_check check (team_id <> ''),
	constraint teams_limits_check check (
		max_budget_nano_usd >= 0 and rpm_limit >= 0 and tpm_limit >= 0 and max_parallel_requests >= 0),
	constraint teams_status_check check (status in ('active', 'blocked', 'exhausted', 'suspended'))
);

create table keys.keys (
	key_id                text        not null,
	token                 text        not null,
	key_name              text        not null,
	key_alias             text        not null,
	team_id               text,
	user_id               text        not null,
	models                text[]      not null,
	max_budget_nano_usd   bigint,
	rpm_limit             bigint,
	tpm_limit             bigint,
	max_parallel_requests bigint,
	budget_duration       text        not null,
	metadata              jsonb       not null,
	tags                  text[]      not null,
	duration              text        not null,
	expires_at            timestamptz,
	blocked               boolean     not null,
	revoked_at            timestamptz,
	idempotency_key       text        not null,
	created_at            timestamptz not null,
	updated_at            timestamptz not null,
	constraint keys_pkey primary key (key_id),
	constraint keys_token_key unique (token),
	constraint keys_token_check check (token ~ '^[0-9a-f]{64}$'),
	constraint keys_team_id_fkey foreign key (team_id) references keys.teams (team_id) on delete no action,
	constraint keys_limits_check check (
		max_budget_nano_usd >= 0 and rpm_limit >= 0 and tpm_limit >= 0 and max_parallel_requests >= 0)
);

create unique index keys_live_alias_key on keys.keys (key_alias)
	where revoked_at is null and key_alias <> '';
create unique index keys_live_idempotency_key on keys.keys (user_id, idempotency_key)
	where revoked_at is null and idempotency_key <> '';
create index keys_alias_idx on keys.keys (key_alias, key_id) where key_alias <> '';
create index keys_user_id_idx on keys.keys (user_id, key_id) where user_id <> '';
create index keys_team_id_idx on keys.keys (team_id, key_id);

-- The newest revision. Whoever takes the next one holds this row until commit,
-- so revisions become visible in their order and without gaps.
create table keys.revision (
	single boolean not null default true,
	value  bigint  not null,
	constraint revision_pkey primary key (single),
	constraint revision_single_check check (single)
);
insert into keys.revision (value) values (0);

create table keys.events (
	revision bigint      not null,
	key_ids  text[]      not null,
	team_ids text[]      not null,
	stopped  boolean     not null,
	reason   text        not null,
	at       timestamptz not null,
	constraint events_pkey primary key (revision),
	constraint events_reason_check check (
		stopped = (reason <> '') and reason in ('', 'revoked', 'blocked', 'exhausted', 'suspended'))
);

create table keys.audit (
	id         bigint      not null generated always as identity,
	at         timestamptz not null,
	actor      text        not null,
	request_id text        not null,
	action     text        not null,
	entity     text        not null,
	before     jsonb,
	after      jsonb,
	constraint audit_pkey primary key (id)
);
create index audit_entity_idx on keys.audit (entity, id);
