package store

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// plain are accounts that are known to have no shared row: a batch need not look for it.
// That holds for a round; rows that are made later begin another one.
type plain struct {
	round int64
	ids   map[ledger.AccountID]struct{}
}

// maxPlain bounds their memory.
const maxPlain = 100_000

// lacks says whether an account is not among them.
func (p *plain) lacks(id ledger.AccountID) bool {
	_, ok := p.ids[id]
	return !ok
}

// learn takes the accounts of a batch in that have no shared row.
func (p *plain) learn(asked iter.Seq[ledger.AccountID], shared func(ledger.AccountID) bool) {
	for id := range asked {
		if shared(id) || clean(id.ID) != id.ID {
			continue
		}
		if len(p.ids) >= maxPlain {
			clear(p.ids) // they are only looked for once more
		}
		p.ids[id] = struct{}{}
	}
}

// update goes on to the newest round.
func (p *plain) update(ctx context.Context, c *pgxpool.Conn) error {
	var newest int64
	if err := c.QueryRow(ctx, `select coalesce(max(made), 0) from spend.accounts`).Scan(&newest); err != nil {
		return fmt.Errorf("read the round of accounts: %w", err)
	}
	if newest <= p.round || len(p.ids) == 0 {
		p.round = newest
		return nil
	}
	rows, _ := c.Query(ctx, `select kind, id from spend.accounts where made > $1 and made <= $2`, p.round, newest)
	var id ledger.AccountID
	_, err := pgx.ForEachRow(rows, []any{&id.Kind, &id.ID}, func() error {
		delete(p.ids, id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the accounts that were made: %w", err)
	}
	p.round = newest
	return nil
}
