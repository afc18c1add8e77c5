package store

import (
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// queueSpent sums what keys have spent, over all logs and days. It is asked for often, so
// the rows that are not in the totals yet are found by their keys (+ 0 keeps the planner
// from finding them by their places, which is to read all of them): those that ended since
// their log was counted, and not others, as a journal may leave.
func queueSpent(p *pipeline, b *ledger.Batch) {
	if len(b.Ask) == 0 {
		return
	}
	ids := p.columns(1)
	ids.texts(b.Ask...)
	b.Spent = make(map[string]money.NanoUSD, len(b.Ask))
	p.queue(`
		select id, (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.account_totals t where t.kind = 'key' and t.id = asked.id)
		  + (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.counted c, lateral (
		       select r.cost_nano_usd from spend.spend_logs r
		       where r.key_id = asked.id and r.ended_at > greatest(c.counted_at - interval '10 s', now() - interval '2 min')
		         and r.log_id + 0 = c.log_id and r.seq + 0 > c.seq and r.day between current_date - 1 and current_date offset 0) r)
		from unnest($1::text[]) asked (id)`, func(r row) {
		b.Spent[r.text(0)] = money.NanoUSD(r.bigint(1))
	}, ids.args()...)
}
