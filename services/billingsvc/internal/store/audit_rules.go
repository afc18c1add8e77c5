package store

import "slices"

// auditRules each select one sentence for every breach. A full audit also looks
// for keys that are there twice on different days, which costs a pass over all
// of them; otherwise only the keys are looked at that no log keeps apart.
func auditRules(full bool) []string {
	if full {
		return slices.Concat(rules, []string{ruleTwice})
	}
	return slices.Concat(rules, []string{ruleRecordedTwice})
}

const ruleTwice = `
	select format('event %s is there %s times', idempotency_key, count(*))
	from billing.billing_events
	group by idempotency_key having count(*) > 1
	order by idempotency_key`

const ruleRecordedTwice = `
	select format('event %s is there %s times', idempotency_key, count(*))
	from billing.billing_events
	where log_id = 0
	group by idempotency_key having count(*) > 1
	order by idempotency_key`

var rules = []string{
	`
	select format('team %s: events sum to %s nano-dollars, its balance says billed %s', b.team_id, coalesce(e.price, 0), b.billed_nano_usd)
	from billing.balances b
	left join (
		select team_id, sum(price) as price
		from (
			select team_id, price_nano_usd as price from billing.audit_marks
			union all select team_id, price from audit_found
			union all select team_id, price from audit_rest
		) x group by 1
	) e using (team_id)
	where b.billed_nano_usd <> coalesce(e.price, 0)
	order by b.team_id`, `
	select format('team %s has events and no balance', team_id)
	from audit_rest r
	where not exists (select from billing.balances b where b.team_id = r.team_id)
	group by team_id order by team_id`, `
	select format('team %s: charges sum to %s nano-dollars, its balance says charged %s', b.team_id, coalesce(c.amount, 0), b.charged_nano_usd)
	from billing.balances b
	left join (select team_id, sum(amount_nano_usd) as amount from billing.charges group by 1) c using (team_id)
	where b.charged_nano_usd <> coalesce(c.amount, 0)
	order by b.team_id`, `
	select format('team %s: billed %s is not charged %s + carried %s', team_id, billed_nano_usd, charged_nano_usd, carried_nano_usd)
	from billing.balances
	where billed_nano_usd::numeric <> charged_nano_usd::numeric + carried_nano_usd
	order by team_id`, `
	select format('team %s: the sink applied %s nano-dollars of its charges, its balance says posted %s', b.team_id, coalesce(c.posted, 0), b.posted_nano_usd)
	from billing.balances b
	left join (
		select team_id, sum(amount_nano_usd - shortfall_nano_usd) as posted
		from billing.charges where state in ('posted', 'short') group by 1
	) c using (team_id)
	where b.posted_nano_usd <> coalesce(c.posted, 0)
	order by b.team_id`, `
	select format('team %s: grants sum to %s nano-dollars, its balance says granted %s', b.team_id, coalesce(g.amount, 0), b.granted_nano_usd)
	from billing.balances b
	left join (select team_id, sum(amount_nano_usd) as amount from billing.grants group by 1) g using (team_id)
	where b.granted_nano_usd <> coalesce(g.amount, 0)
	order by b.team_id`, `
	select format('charge %s (team %s, seq %s): amount %s is not carry before %s + events %s - carry after %s',
		charge_id, team_id, seq, amount_nano_usd, before, price, carried_nano_usd)
	from audit_found
	where amount_nano_usd <> before + price - carried_nano_usd
	order by team_id, seq`, `
	select format('charge %s (team %s, seq %s): its %s events do not match its count %s and checksum',
		charge_id, team_id, seq, events, event_count)
	from audit_found
	where not sealed
	order by team_id, seq`, `
	select format('event %s of team %s is in charge %s of team %s', e.idempotency_key, e.organization_id, f.charge_id, f.team_id)
	from audit_found f join billing.billing_events e using (charge_id)
	where f.strangers > 0 and e.organization_id <> f.team_id
	order by e.idempotency_key`, `
	select format('event %s: price %s is not cost %s x markup %s', e.idempotency_key, e.price_nano_usd, e.cost_nano_usd, e.markup)
	from audit_found f join billing.billing_events e using (charge_id)
	where f.mispriced > 0 and e.event_type = 'llm' and e.price_nano_usd <> round(e.cost_nano_usd * e.markup::numeric)
	order by e.idempotency_key`, `
	select format('team %s: it has %s charges with seq %s to %s, its next seq is %s',
		b.team_id, count(c.seq), coalesce(min(c.seq), 0), coalesce(max(c.seq), 0), b.next_charge_seq)
	from billing.balances b left join billing.charges c using (team_id)
	group by b.team_id, b.next_charge_seq
	having count(c.seq) <> b.next_charge_seq - 1 or coalesce(max(c.seq), 0) <> b.next_charge_seq - 1
	order by b.team_id`, `
	select format('charge %s (team %s, seq %s) is %s without a proof', charge_id, team_id, seq, state)
	from billing.charges
	where state in ('posted', 'short') and proof = ''
	order by team_id, seq`, `
	select format(case when known then 'log %s: %s of its %s rows are events or in quarantine' else 'log %s has events and no cursor' end,
		log_id, rows, seq)
	from audit_bad_logs
	order by log_id`,
}

// ruleMissing names the rows of bad logs that are nowhere. It reads all events,
// so it is only asked when there are such logs.
const ruleMissing = `
	select format('row %s of log %s is neither an event nor in quarantine', s.seq, l.log_id)
	from audit_bad_logs l
	cross join lateral generate_series(1, l.seq) s (seq)
	left join (
		select log_id, seq from billing.billing_events where log_id in (select log_id from audit_bad_logs)
		union select log_id, seq from billing.quarantine
	) e on e.log_id = l.log_id and e.seq = s.seq
	where e.log_id is null
	order by l.log_id, s.seq`

// ruleOrphans names events of bad logs that are in a charge that is not there:
// such events are in no sum, so their log is bad.
const ruleOrphans = `
	select format('event %s is in charge %s, which is not there', e.idempotency_key, e.charge_id)
	from billing.billing_events e
	where (e.log_id = 0 or e.log_id in (select log_id from audit_bad_logs)) and e.charge_id is not null
		and not exists (select from billing.charges c where c.charge_id = e.charge_id)
	order by e.idempotency_key`
