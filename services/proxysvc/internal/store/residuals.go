package store

import (
	"context"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// FreeResiduals gives back what was held long enough for requests of replicas
// that were taken for dead.
func (s *Store) FreeResiduals(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := s.db.Exec(ctx, `select spend.free_residuals('{}') where exists (select from spend.residuals where until <= now())`); err != nil {
		return explain("free what was held for dead replicas", err)
	}
	return nil
}

// queueResiduals keeps what the batch's estimates leave held, and frees what its
// corrections make known. Where no account has a shared row nothing is held.
func queueResiduals(p *pipeline, b *ledger.Batch) {
	c := p.columns(5)
	var corrected []string
	for _, s := range b.Settlements {
		if s.Keep > 0 {
			c.texts(s.RequestID, s.KeyID, s.TeamID, clean(s.ModelGroup))
			c.bigints(int64(s.Keep))
		}
		if s.Adjusts != "" {
			corrected = append(corrected, s.Adjusts)
		}
	}
	if c.len() > 0 {
		p.queue(`
			insert into spend.residuals (request_id, key_id, team_id, model_group, held_nano_usd, until)
			select r.*, now() + $1 from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) r (request_id, key_id, team_id, model_group, held)
			where exists (select from spend.accounts a
			  where a.kind in ('key', 'team', 'key_model', 'team_model') and a.id in (r.key_id, r.team_id,
			    r.key_id || E'\n' || spend.bare_model(r.model_group), r.team_id || E'\n' || spend.bare_model(r.model_group))
			  and spend.is_of(a.kind, a.id, r.key_id, r.team_id, r.model_group))
			on conflict do nothing`, nil, c.args(b.KeepFor)...)
	}
	if len(corrected) > 0 {
		p.queue(`select spend.free_residuals($1)`, nil, corrected)
	}
}
