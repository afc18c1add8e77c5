package store

import (
	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// queueSpent sums what keys have spent, over all logs and days.
func queueSpent(p *pipeline, b *ledger.Batch) {
	if len(b.Ask) == 0 {
		return
	}
	ids := p.columns(1)
	ids.texts(b.Ask...)
	b.Spent = make(map[string]money.NanoUSD, len(b.Ask))
	p.Queue(`
		with fresh as materialized (select id, cost_nano_usd from spend.uncounted('key', $1::text[]))
		select id, (select coalesce(sum(cost_nano_usd), 0)::bigint from spend.account_totals t where t.kind = 'key' and t.id = asked.id)
		  + (select coalesce(sum(cost_nano_usd), 0)::bigint from fresh f where f.id = asked.id)
		from unnest($1::text[]) asked (id)`, ids.args()...).Query(func(rows pgx.Rows) error {
		var id string
		var spent money.NanoUSD
		_, err := pgx.ForEachRow(rows, []any{&id, &spent}, func() error {
			b.Spent[id] = spent
			return nil
		})
		return err
	})
}
