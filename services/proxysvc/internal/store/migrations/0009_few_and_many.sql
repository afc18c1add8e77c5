-- Totals of teams, models and tags apart from those of keys and users, of which there
-- are a thousand times as many: a report of all teams reads rows that lie together.
alter table spend.account_totals rename to account_totals_before;
alter table spend.account_totals_before rename constraint account_totals_pkey to account_totals_before_pkey;
drop index spend.account_totals_day;

create table spend.account_totals (
  like spend.account_totals_before including defaults,
  primary key (kind, id, day, log_id)
) partition by list (kind);
create table spend.account_totals_many partition of spend.account_totals for values in ('key', 'user') with (fillfactor = 70);
create table spend.account_totals_few partition of spend.account_totals default with (fillfactor = 70);

insert into spend.account_totals select * from spend.account_totals_before;
drop table spend.account_totals_before;

-- Reports of all accounts of a kind on some days.
create index account_totals_day on spend.account_totals (kind, day);
