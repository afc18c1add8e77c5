package store

import "github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"

// queueSlices writes the slices that the batch changes. What it settles of them their
// accounts have been told.
func queueSlices(p *pipeline, b *ledger.Batch) {
	if len(b.Slices) == 0 {
		return
	}
	kept, gone := p.columns(5), p.columns(2)
	for _, s := range b.Slices {
		id := clean(s.Account.Name())
		if s.Held == 0 && s.Open == 0 {
			gone.texts(s.Account.Kind, id)
			continue
		}
		kept.texts(s.Account.Kind, id)
		kept.bigints(int64(s.Held), s.Open, s.Tokens)
	}
	if kept.len() > 0 {
		p.queue(`
			insert into spend.slices (log_id, seq, keep_for, kind, id, held_nano_usd, open_requests, held_tokens)
			select $1, $2, $3, c.* from unnest($4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[]) c
			on conflict (kind, id, log_id) do update set seq = excluded.seq, keep_for = excluded.keep_for,
			  held_nano_usd = excluded.held_nano_usd, open_requests = excluded.open_requests, held_tokens = excluded.held_tokens`, nil,
			kept.args(b.LogID, b.FirstSeq+int64(len(b.Settlements))-1, b.KeepFor)...)
	}
	if gone.len() > 0 {
		p.queue(`
			delete from spend.slices s using unnest($2::text[], $3::text[]) c (kind, id)
			where s.kind = c.kind and s.id = c.id and s.log_id = $1`, nil, gone.args(b.LogID)...)
	}
}
