package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// ClaimWarning is true for the first who asks about a warning of an account and a
// window.
func (s *Store) ClaimWarning(ctx context.Context, w ledger.Warning) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ends := "infinity"
	if !w.Window.IsZero() {
		ends = w.Window.UTC().Format("2006-01-02 15:04:05Z07:00")
	}
	tag, err := s.db.Exec(ctx, `
		insert into spend.warnings (kind, id, soft_nano_usd, window_ends, spent_nano_usd)
		values (@kind, @id, @soft, @ends::text::timestamptz, @spent) on conflict do nothing`,
		pgx.StrictNamedArgs{"kind": w.Account.Kind, "id": clean(w.Account.Name()), "soft": w.Soft, "ends": ends, "spent": w.Spent})
	if err != nil {
		return false, explain("claim a warning", err)
	}
	return tag.RowsAffected() == 1, nil
}
