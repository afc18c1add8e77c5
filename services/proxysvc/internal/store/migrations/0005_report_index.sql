-- Reports of all accounts of a kind on some days.
create index account_totals_day on spend.account_totals (kind, day);
