-- Nobody reads the name of an old secret. Binaries from before this still write it,
-- so the column stays until none of them runs; those from here on leave it empty.
alter table keys.old_secrets alter column key_name set default '';
