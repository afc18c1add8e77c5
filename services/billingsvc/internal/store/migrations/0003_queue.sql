-- Which teams have a charge to post, and since when at the earliest: what a lease
-- looks at instead of the open charges of every team. A row's due_at is never
-- later than that of the team's next charge, or the end of its lease. It may be
-- earlier; whoever leases puts that right. Whatever writes a charge keeps the
-- promise by the trigger.
create table billing.charge_queue (
	team_id text collate "C" not null,
	due_at  timestamptz not null,
	constraint charge_queue_pkey primary key (team_id)
);
create index charge_queue_due on billing.charge_queue (due_at, team_id);

create function billing.queue_charge() returns trigger language plpgsql as $$
begin
	insert into billing.charge_queue as q (team_id, due_at)
	values (new.team_id, coalesce(new.lease_until, new.due_at))
	on conflict (team_id) do update set due_at = least(q.due_at, excluded.due_at);
	return null;
end $$;
create trigger charges_queue_new after insert on billing.charges
	for each row execute function billing.queue_charge();
create trigger charges_queue_changed after update on billing.charges
	for each row when (new.lease_until is null or new.lease_until < old.lease_until)
	execute function billing.queue_charge();

insert into billing.charge_queue (team_id, due_at)
select team_id, min(coalesce(lease_until, due_at))
from billing.charges where state in ('pending', 'ambiguous')
group by team_id;
