package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// auditLock keeps audits apart: they move the marks.
const auditLock = 7_030_518_114_201

// Audit compares the books with themselves, on one snapshot. Frozen charges and
// their events never change, so what an audit found right is summed up in marks
// and only looked at again by a full one. What stands in the balances is always
// compared with all charges.
func (s *Store) Audit(ctx context.Context, full bool) (billing.Audit, error) {
	var a billing.Audit
	err := s.db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		// Outside the transaction: its snapshot must come after the lock.
		if _, err := conn.Exec(ctx, `select pg_advisory_lock(@key)`, pgx.StrictNamedArgs{"key": auditLock}); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		defer conn.Exec(context.WithoutCancel(ctx), `select pg_advisory_unlock_all()`) //nolint:errcheck // the connection's end unlocks too
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
			var err error
			a, err = audit(ctx, tx, full)
			return err
		})
	})
	if err != nil {
		return billing.Audit{}, fmt.Errorf("audit: %w", err)
	}
	return a, nil
}

func audit(ctx context.Context, tx pgx.Tx, full bool) (billing.Audit, error) {
	var a billing.Audit
	steps := []string{auditCharges, `analyze audit_found`, auditSpread, auditRest, auditBadLogs}
	if full {
		steps = append([]string{auditForget}, steps...)
	}
	for _, step := range steps {
		if _, err := tx.Exec(ctx, step); err != nil {
			return a, fmt.Errorf("sum events: %w", err)
		}
	}
	var err error
	if a.Faults, err = faults(ctx, tx, full); err != nil {
		return a, err
	}
	rows, _ := tx.Query(ctx, auditTeams)
	if a.Teams, err = collect[billing.TeamSums](rows, "sum by team"); err != nil {
		return a, err
	}
	rows, _ = tx.Query(ctx, auditRead)
	if a.Read, err = collect[billing.TeamRead](rows, "sum what was read"); err != nil {
		return a, err
	}
	err = tx.QueryRow(ctx, `
		select (select count(*) from billing.quarantine where rerated_at is null),
			(select coalesce(sum(cost_nano_usd), 0)::bigint from billing.quarantine where rerated_at is null),
			(select coalesce(sum(events), 0)::bigint from audit_found) + (select coalesce(sum(events), 0)::bigint from audit_rest),
			(select coalesce(sum(events), 0)::bigint from billing.audit_marks)`).
		Scan(&a.Quarantined, &a.QuarantinedNanoUSD, &a.Checked, &a.Trusted)
	if err != nil {
		return a, fmt.Errorf("sum the quarantine: %w", err)
	}
	for _, step := range []string{auditGood, auditMarkLogs, auditMark} {
		if _, err := tx.Exec(ctx, step); err != nil {
			return a, fmt.Errorf("move the marks: %w", err)
		}
	}
	return a, nil
}

// mostFaults is how many faults of a kind are named. The others are counted.
const mostFaults = 100

// faults asks every rule for what breaks it.
func faults(ctx context.Context, tx pgx.Tx, full bool) ([]string, error) {
	asked := auditRules(full)
	var holes bool
	if err := tx.QueryRow(ctx, `select exists (select from audit_bad_logs)`).Scan(&holes); err != nil {
		return nil, fmt.Errorf("look for holes: %w", err)
	}
	if holes {
		asked = append(asked, ruleMissing, ruleOrphans)
	}
	var all []string
	for _, rule := range asked {
		rows, _ := tx.Query(ctx, `select fault, count(*) over () as found from (`+rule+`) f (fault) limit @most`, pgx.StrictNamedArgs{"most": mostFaults})
		type breach struct {
			Fault string
			Found int64
		}
		named, err := collect[breach](rows, "ask a rule")
		if err != nil {
			return nil, err
		}
		for _, b := range named {
			all = append(all, b.Fault)
		}
		if len(named) == mostFaults && named[0].Found > mostFaults {
			all = append(all, fmt.Sprintf("… and %d more like the last one", named[0].Found-mostFaults))
		}
	}
	return all, nil
}

// auditForget makes an audit full.
const auditForget = `delete from billing.audit_marks; delete from billing.audit_log_marks`

// auditCharges sums the events of every charge after its team's mark.
const auditCharges = `
	create temp table audit_found on commit drop as
	select c.charge_id, c.team_id, c.seq, c.amount_nano_usd, c.carried_nano_usd, c.event_count,
		lag(c.carried_nano_usd, 1, coalesce(m.carried_nano_usd, 0)) over (partition by c.team_id order by c.seq) as before,
		coalesce(e.n, 0) as events, coalesce(e.cost, 0) as cost, coalesce(e.price, 0) as price, coalesce(e.strangers, 0) as strangers,
		coalesce(e.mispriced, 0) as mispriced, coalesce(e.placed, 0) as placed, coalesce(e.seq_sum, 0) as seq_sum,
		e.first_log, e.last_log, coalesce(c.event_count = e.n and c.checksum = e.checksum, false) as sealed
	from billing.charges c
	left join billing.audit_marks m using (team_id)
	left join lateral (
		select count(*) as n, sum(e.cost_nano_usd) filter (where e.log_id <> 0) as cost, sum(e.price_nano_usd) as price,
			count(*) filter (where e.organization_id <> c.team_id) as strangers,
			count(*) filter (where e.event_type = 'llm' and e.price_nano_usd <> round(e.cost_nano_usd * e.markup::numeric)) as mispriced,
			count(*) filter (where e.log_id <> 0) as placed, sum(e.seq) as seq_sum,
			min(e.log_id) filter (where e.log_id <> 0) as first_log, max(e.log_id) as last_log,
			encode(sha256(convert_to(string_agg(
				e.idempotency_key || '=' || e.price_nano_usd || E'\n', '' order by e.idempotency_key), 'UTF8')), 'hex') as checksum
		from billing.billing_events e
		where e.charge_id = c.charge_id
	) e on true
	where c.seq > coalesce(m.seq, 0)`

// auditSpread counts the rows of each log by charge. Most charges are of one
// log; the others are looked at again.
const auditSpread = `
	create temp table audit_spread on commit drop as
	select charge_id, first_log as log_id, placed as rows, seq_sum::numeric as seq_sum
	from audit_found where placed > 0 and first_log = last_log
	union all
	select f.charge_id, e.log_id, count(*), sum(e.seq)::numeric
	from audit_found f join billing.billing_events e on e.charge_id = f.charge_id
	where f.placed > 0 and f.first_log <> f.last_log and e.log_id <> 0
	group by f.charge_id, e.log_id`

// auditRest sums the events that no charge has taken yet.
const auditRest = `
	create temp table audit_rest on commit drop as
	select organization_id as team_id, log_id, count(*) as events, sum(cost_nano_usd) filter (where log_id <> 0) as cost,
		sum(price_nano_usd) as price, sum(seq) as seq_sum
	from billing.billing_events
	where charge_id is null
	group by 1, 2`

// auditTeams takes every sum from the rows that it stands for, or from the marks
// that stand for these, never from the balance.
const auditTeams = `
	with e as (
		select team_id, sum(events)::bigint as events, sum(cost)::bigint as cost, sum(price)::bigint as billed
		from (
			select team_id, events, cost_nano_usd as cost, price_nano_usd as price from billing.audit_marks
			union all select team_id, events, cost, price from audit_found
			union all select team_id, events, coalesce(cost, 0), price from audit_rest
		) x group by 1
	), c as (
		select team_id, sum(amount_nano_usd)::bigint as charged,
			coalesce(sum(amount_nano_usd - shortfall_nano_usd) filter (where state in ('posted', 'short')), 0)::bigint as posted,
			coalesce(sum(shortfall_nano_usd) filter (where state = 'short'), 0)::bigint as short,
			coalesce(sum(amount_nano_usd) filter (where state = 'dead'), 0)::bigint as dead,
			coalesce(sum(amount_nano_usd) filter (where state = 'ambiguous'), 0)::bigint as doubtful
		from billing.charges group by 1
	)
	select team_id, coalesce(events, 0) as events, coalesce(cost, 0) as cost_nano_usd, coalesce(billed, 0) as billed_nano_usd,
		coalesce(charged, 0) as charged_nano_usd, coalesce(posted, 0) as posted_nano_usd,
		coalesce(billed, 0) - coalesce(charged, 0) as carried_nano_usd, coalesce(short, 0) as short_nano_usd,
		coalesce(dead, 0) as dead_nano_usd, coalesce(doubtful, 0) as doubtful_nano_usd
	from billing.balances left join e using (team_id) left join c using (team_id)
	where events > 0 or charged > 0
	union all
	select team_id, events, cost, billed, 0, 0, billed, 0, 0, 0 from e where team_id not in (select team_id from billing.balances)
	order by team_id`

// auditRead takes back what was billed from the quarantine, which may have been
// to another team or at another cost, and takes the rows that were there.
const auditRead = `
	select team_id, coalesce(sum(cost), 0)::bigint as cost_nano_usd
	from (
		select team_id, cost_nano_usd as cost from billing.audit_marks
		union all select team_id, cost from audit_found
		union all select team_id, cost from audit_rest
		union all select team_id, cost_nano_usd from billing.quarantine
		union all select e.organization_id, -e.cost_nano_usd
			from billing.quarantine q
			join billing.billing_events e on e.idempotency_key = 'llm:' || q.request_id and e.log_id = q.log_id and e.seq = q.seq
			where q.rerated_at is not null
	) x
	group by 1
	order by 1`

// auditGood finds how far each team's charges are right, one after another.
const auditGood = `
	create temp table audit_good on commit drop as
	with bad as (
		select team_id, min(seq) as seq
		from audit_found
		where not sealed or strangers > 0 or mispriced > 0 or amount_nano_usd <> before + price - carried_nano_usd
		group by 1
	)
	select f.* from audit_found f left join bad using (team_id)
	where bad.seq is null or f.seq < bad.seq`

const auditMarkLogs = `
	insert into billing.audit_log_marks as m (log_id, rows, seq_sum)
	select s.log_id, sum(s.rows), sum(s.seq_sum) from audit_spread s join audit_good g using (charge_id) group by 1
	on conflict (log_id) do update set rows = m.rows + excluded.rows, seq_sum = m.seq_sum + excluded.seq_sum`

const auditMark = `
	insert into billing.audit_marks as m (team_id, seq, events, cost_nano_usd, price_nano_usd, carried_nano_usd)
	select team_id, max(seq), sum(events), sum(cost), sum(price), (array_agg(carried_nano_usd order by seq desc))[1]
	from audit_good group by 1
	on conflict (team_id) do update set seq = excluded.seq, events = m.events + excluded.events,
		cost_nano_usd = m.cost_nano_usd + excluded.cost_nano_usd, price_nano_usd = m.price_nano_usd + excluded.price_nano_usd,
		carried_nano_usd = excluded.carried_nano_usd`

// auditBadLogs finds the logs whose rows are not, each once, events or in
// quarantine: their number and the sum of their places must be those of
// 1, 2, 3, … up to the cursor.
const auditBadLogs = `
	create temp table audit_bad_logs on commit drop as
	select log_id, coalesce(c.seq, 0) as seq, coalesce(x.rows, 0) as rows, c.log_id is not null as known
	from billing.cursors c
	full join (
		select log_id, sum(rows) as rows, sum(seq_sum) as seq_sum
		from (
			select log_id, rows, seq_sum from billing.audit_log_marks
			union all select log_id, rows, seq_sum from audit_spread
			union all select log_id, events, seq_sum from audit_rest where log_id <> 0
			union all select log_id, count(*), sum(seq) from billing.quarantine where rerated_at is null group by 1
		) y group by 1
	) x using (log_id)
	where c.log_id is null or c.seq <> coalesce(x.rows, 0) or c.seq::numeric * (c.seq + 1) / 2 <> coalesce(x.seq_sum, 0)`
