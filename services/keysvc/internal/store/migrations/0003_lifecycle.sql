-- Finer limits, networks and routes, rotation, deleted teams, announced ends.

-- finer: budgets by window and model, soft and temporary budgets, limits by
-- model. Few keys have any, nothing is ever looked for by them, and they are
-- always read together.
alter table keys.teams
	add column finer      jsonb not null default '{}',
	add column deleted_at timestamptz;

alter table keys.keys
	add column finer            jsonb   not null default '{}',
	add column allowed_cidrs    text[]  not null default '{}',
	add column allowed_routes   text[]  not null default '{}',
	add column rotated_at       timestamptz,
	add column rotation_key     text    not null default '',
	-- Watchers were told that the key's life is over.
	add column expiry_announced boolean not null default false;

update keys.keys set expiry_announced = true where expires_at <= now();

create index keys_expiring_idx on keys.keys (expires_at)
	where expires_at is not null and revoked_at is null and not expiry_announced;

-- Secrets that were rotated away. They are kept, so that a key is found by every
-- token it ever had.
create table keys.old_secrets (
	token      text        not null,
	key_id     text        not null,
	key_name   text        not null,
	rotated_at timestamptz not null,
	ends_at    timestamptz not null,
	announced  boolean     not null,
	constraint old_secrets_pkey primary key (token),
	constraint old_secrets_token_check check (token ~ '^[0-9a-f]{64}$'),
	constraint old_secrets_key_id_fkey foreign key (key_id) references keys.keys (key_id) on delete no action
);
create index old_secrets_key_id_idx on keys.old_secrets (key_id, rotated_at);
create index old_secrets_ending_idx on keys.old_secrets (ends_at) where not announced;

alter table keys.audit add column changed_by text not null default '';
create index audit_actor_idx on keys.audit (actor, id);
