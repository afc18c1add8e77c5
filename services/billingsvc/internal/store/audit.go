package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Audit compares the books with themselves, on one snapshot.
func (s *Store) Audit(ctx context.Context) (billing.Audit, error) {
	var a billing.Audit
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.db, opts, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, auditTeams)
		teams, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.TeamSums])
		if err != nil {
			return fmt.Errorf("sum by team: %w", err)
		}
		a.Teams = teams
		err = tx.QueryRow(ctx, `select count(*), coalesce(sum(cost_nano_usd), 0)::bigint from billing.quarantine`).
			Scan(&a.Quarantined, &a.QuarantinedNanoUSD)
		if err != nil {
			return fmt.Errorf("sum the quarantine: %w", err)
		}
		for _, rule := range auditRules {
			rows, _ := tx.Query(ctx, rule+` limit 100`)
			faults, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return fmt.Errorf("audit: %w", err)
			}
			a.Faults = append(a.Faults, faults...)
		}
		return nil
	})
	if err != nil {
		return billing.Audit{}, err
	}
	return a, nil
}

// auditTeams takes every sum from the rows that it stands for, never from the
// balance.
const auditTeams = `
	with e as (
		select organization_id as team_id, count(*) as events, sum(cost_nano_usd)::bigint as cost, sum(price_nano_usd)::bigint as billed
		from billing.billing_events group by 1
	), c as (
		select team_id, sum(amount_nano_usd)::bigint as charged,
			coalesce(sum(amount_nano_usd - shortfall_nano_usd) filter (where state in ('posted', 'short')), 0)::bigint as posted
		from billing.charges group by 1
	)
	select team_id, coalesce(events, 0) as events, coalesce(cost, 0) as cost_nano_usd, coalesce(billed, 0) as billed_nano_usd,
		coalesce(charged, 0) as charged_nano_usd, coalesce(posted, 0) as posted_nano_usd,
		coalesce(billed, 0) - coalesce(charged, 0) as carried_nano_usd
	from billing.balances left join e using (team_id) left join c using (team_id)
	union all
	select team_id, events, cost, billed, 0, 0, billed from e where team_id not in (select team_id from billing.balances)
	order by team_id`

// auditRules each select one sentence for every breach.
var auditRules = []string{
	`
	select format('team %s: events sum to %s nano-dollars, its balance says billed %s', b.team_id, coalesce(e.price, 0), b.billed_nano_usd)
	from billing.balances b
	left join (select organization_id, sum(price_nano_usd) as price from billing.billing_events group by 1) e on e.organization_id = b.team_id
	where b.billed_nano_usd <> coalesce(e.price, 0)
	order by b.team_id`, `
	select format('team %s has events and no balance', organization_id)
	from billing.billing_events e
	where not exists (select from billing.balances b where b.team_id = e.organization_id)
	group by organization_id order by organization_id`, `
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
	select format('charge %s (team %s, seq %s): amount %s is not carry before %s + events %s - carry after %s',
		charge_id, team_id, seq, amount_nano_usd, before, price, carried_nano_usd)
	from (
		select c.charge_id, c.team_id, c.seq, c.amount_nano_usd, c.carried_nano_usd, coalesce(e.price, 0) as price,
			lag(c.carried_nano_usd, 1, 0::bigint) over (partition by c.team_id order by c.seq) as before
		from billing.charges c
		left join (select charge_id, sum(price_nano_usd) as price from billing.billing_events group by 1) e using (charge_id)
	) x
	where amount_nano_usd <> before + price - carried_nano_usd
	order by team_id, seq`, `
	select format('charge %s (team %s, seq %s): its %s events do not match its count %s and checksum',
		c.charge_id, c.team_id, c.seq, coalesce(e.n, 0), c.event_count)
	from billing.charges c
	left join (
		select charge_id, count(*) as n, encode(sha256(convert_to(string_agg(
			idempotency_key || '=' || price_nano_usd || E'\n', '' order by idempotency_key), 'UTF8')), 'hex') as checksum
		from billing.billing_events group by 1
	) e using (charge_id)
	where c.event_count <> coalesce(e.n, 0) or c.checksum <> coalesce(e.checksum, '')
	order by c.team_id, c.seq`, `
	select format('event %s of team %s is in charge %s of team %s', e.idempotency_key, e.organization_id, c.charge_id, c.team_id)
	from billing.billing_events e join billing.charges c using (charge_id)
	where e.organization_id <> c.team_id
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
	select format('event %s is there %s times', idempotency_key, count(*))
	from billing.billing_events
	group by idempotency_key having count(*) > 1
	order by idempotency_key`, `
	select format('log %s: %s of its %s rows are events or in quarantine', c.log_id, coalesce(r.n, 0), c.seq)
	from billing.cursors c
	left join (
		select log_id, count(*) as n
		from (select log_id, seq from billing.billing_events union select log_id, seq from billing.quarantine) x
		group by 1
	) r using (log_id)
	where c.seq <> coalesce(r.n, 0)
	order by c.log_id`,
}
