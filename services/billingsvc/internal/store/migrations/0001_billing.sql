-- How far each log of the ledger has been billed.
create table billing.cursors (
	log_id     bigint      not null,
	seq        bigint      not null default 0,
	closed     boolean     not null default false,
	updated_at timestamptz not null default now(),
	constraint cursors_pkey primary key (log_id),
	constraint cursors_seq check (seq >= 0)
);

-- Where each team's money stands.
create table billing.balances (
	team_id              text collate "C" not null,
	billed_nano_usd      bigint not null default 0,
	charged_nano_usd     bigint not null default 0,
	carried_nano_usd     bigint not null default 0,
	posted_nano_usd      bigint not null default 0,
	next_charge_seq      bigint not null default 1,
	sink_balance_credits text   not null default '',
	constraint balances_pkey primary key (team_id),
	constraint balances_team check (team_id <> ''),
	constraint balances_conserved check (billed_nano_usd = charged_nano_usd + carried_nano_usd),
	constraint balances_carried check (carried_nano_usd < 10),
	constraint balances_posted check (posted_nano_usd between 0 and charged_nano_usd),
	constraint balances_next_seq check (next_charge_seq >= 1)
);

-- Frozen sums of events. charge_id, team_id, seq, amount, carry, count and
-- checksum never change; the rest tells of the attempts to post it.
create table billing.charges (
	charge_id          text collate "C" not null,
	team_id            text collate "C" not null,
	seq                bigint      not null,
	amount_nano_usd    bigint      not null,
	-- What was left of the team's sum after this charge had been taken out.
	carried_nano_usd   bigint      not null,
	event_count        bigint      not null,
	checksum           text        not null,
	state              text        not null default 'pending',
	-- Some attempt ended without an answer, so it may have been applied.
	unsure             boolean     not null default false,
	attempts           integer     not null default 0,
	proof              text        not null default '',
	last_error         text        not null default '',
	frozen_at          timestamptz not null,
	first_sent_at      timestamptz,
	due_at             timestamptz not null,
	settled_at         timestamptz,
	shortfall_nano_usd bigint      not null default 0,
	-- The newest lease, and the newest whose outcome was recorded.
	lease_token        bigint      not null default 0,
	recorded_token     bigint      not null default 0,
	lease_worker       text        not null default '',
	lease_until        timestamptz,
	constraint charges_pkey primary key (charge_id),
	constraint charges_team_seq unique (team_id, seq),
	constraint charges_team foreign key (team_id) references billing.balances (team_id),
	constraint charges_seq check (seq >= 1),
	constraint charges_amount check (amount_nano_usd > 0 and amount_nano_usd % 10 = 0),
	constraint charges_carried check (carried_nano_usd between 0 and 9),
	constraint charges_event_count check (event_count >= 1),
	constraint charges_state check (state in ('pending', 'posted', 'short', 'ambiguous', 'dead')),
	constraint charges_proof check (state not in ('posted', 'short') or proof <> ''),
	constraint charges_settled check ((state in ('posted', 'short')) = (settled_at is not null)),
	constraint charges_shortfall check (shortfall_nano_usd between 0 and amount_nano_usd),
	constraint charges_short check ((state = 'short') = (shortfall_nano_usd > 0)),
	constraint charges_tokens check (recorded_token <= lease_token)
);
-- A team's oldest open charge.
create index charges_open on billing.charges (team_id, seq) where state in ('pending', 'ambiguous');
-- One charge of a team in flight, never two.
create unique index charges_one_lease on billing.charges (team_id) where lease_until is not null;
create index charges_by_team on billing.charges (team_id, charge_id);
create index charges_by_state on billing.charges (state, charge_id);

-- The ledger of what was billed. day is the UTC day on which the request ended,
-- never that of the insert, so a repeated row meets itself in its partition.
create table billing.billing_events (
	day             date        not null,
	idempotency_key text collate "C" not null,
	organization_id text collate "C" not null,
	event_type      text        not null,
	-- Tokens of all pools.
	quantity        bigint      not null,
	cost_nano_usd   bigint      not null,
	price_nano_usd  bigint      not null,
	credits         numeric(20, 7) not null generated always as (price_nano_usd * 0.0000001) stored,
	markup          text        not null,
	session_ids     text[]      not null,
	status          text        not null default 'billed',
	metadata        jsonb       not null,
	charge_id       text collate "C",
	log_id          bigint      not null,
	seq             bigint      not null,
	occurred_at     timestamptz not null,
	created_at      timestamptz not null,
	-- The key comes first: it is also looked up without its day.
	constraint billing_events_pkey primary key (idempotency_key, day),
	constraint billing_events_charge foreign key (charge_id) references billing.charges (charge_id),
	constraint billing_events_team check (organization_id <> ''),
	constraint billing_events_status check (status in ('billed')),
	constraint billing_events_day check (day = (occurred_at at time zone 'UTC')::date)
) partition by range (day);
create index billing_events_by_team on billing.billing_events (organization_id, occurred_at, idempotency_key);
create index billing_events_by_time on billing.billing_events (occurred_at, idempotency_key);
create index billing_events_by_charge on billing.billing_events (charge_id);
create index billing_events_uncharged on billing.billing_events (organization_id) where charge_id is null;

-- Catches days for which no partition was made; should stay empty.
create table billing.billing_events_default partition of billing.billing_events default;

-- Rows of the ledger that could not be billed.
create table billing.quarantine (
	log_id        bigint      not null,
	seq           bigint      not null,
	request_id    text        not null,
	team_id       text        not null,
	cost_nano_usd bigint      not null,
	reason        text        not null,
	row           jsonb       not null,
	created_at    timestamptz not null,
	constraint quarantine_pkey primary key (log_id, seq)
);
