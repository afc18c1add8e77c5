-- Under what a charge in doubt was sent: the device by which the sink takes it once,
-- and the key that it was given. Only under it does the sink know the charge, whatever
-- is configured by now. Empty: nobody said.
alter table billing.charges
	add column sent_device text not null default '',
	add column sent_key text not null default '';
