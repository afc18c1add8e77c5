-- Warnings of soft budgets that were given, one a window.
create table spend.warnings (
  kind     text not null,
  id       text not null,
  soft_nano_usd bigint not null,
  window_ends   timestamptz not null, -- infinity: never
  spent_nano_usd bigint not null,
  given_at timestamptz not null default clock_timestamp(),
  primary key (kind, id, soft_nano_usd, window_ends)
);
