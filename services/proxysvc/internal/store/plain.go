package store

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// plain are accounts that are known to have no shared row: a batch need not look for it.
// That holds for a round; rows that are made later begin another one.
type plain struct {
	round  int64
	owners map[owner]*bare
	last   owner // that was looked up, and what was found: its model is next
	found  *bare
}

// owner is a key or a team.
type owner struct {
	team bool
	id   string
}

// bare says which accounts of an owner have no shared row.
type bare struct {
	own    bool
	models []string
}

// The bounds of their memory.
const (
	maxPlain       = 50_000
	maxPlainModels = 16 // of each
)

func ownerOf(id ledger.AccountID) owner {
	return owner{id.Kind == ledger.KindTeam || id.Kind == ledger.KindTeamModel, id.ID}
}

func (p *plain) of(o owner) *bare {
	if o != p.last {
		p.last, p.found = o, p.owners[o]
	}
	return p.found
}

// lacks says whether an account is not among them.
func (p *plain) lacks(id ledger.AccountID) bool {
	of := p.of(ownerOf(id))
	switch {
	case of == nil:
		return true
	case id.OfModel():
		return !slices.Contains(of.models, id.Model)
	}
	return !of.own
}

// learn takes the accounts of a batch in that have no shared row.
func (p *plain) learn(asked iter.Seq[ledger.AccountID], shared func(ledger.AccountID) bool) {
	for id := range asked {
		if name := id.Name(); shared(id) || clean(name) != name {
			continue
		}
		o := ownerOf(id)
		of := p.of(o)
		if of == nil {
			if len(p.owners) >= maxPlain {
				clear(p.owners) // they are only looked for once more
			}
			of = &bare{}
			p.owners[o], p.found = of, of
		}
		switch {
		case !id.OfModel():
			of.own = true
		case len(of.models) < maxPlainModels:
			of.models = append(of.models, id.Model)
		}
	}
}

// forget drops what is known of an account's owner.
func (p *plain) forget(kind, name string) {
	id, _, _ := strings.Cut(name, "\n")
	delete(p.owners, ownerOf(ledger.AccountID{Kind: kind, ID: id}))
	p.last, p.found = owner{}, nil
}

// update goes on to the newest round.
func (p *plain) update(ctx context.Context, c *pgxpool.Conn) error {
	var newest int64
	if err := c.QueryRow(ctx, `select coalesce(max(made), 0) from spend.accounts`).Scan(&newest); err != nil {
		return fmt.Errorf("read the round of accounts: %w", err)
	}
	if newest <= p.round || len(p.owners) == 0 {
		p.round = newest
		return nil
	}
	rows, _ := c.Query(ctx, `select kind, id from spend.accounts where made > $1 and made <= $2`, p.round, newest)
	var kind, name string
	_, err := pgx.ForEachRow(rows, []any{&kind, &name}, func() error {
		p.forget(kind, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the accounts that were made: %w", err)
	}
	p.round = newest
	return nil
}
