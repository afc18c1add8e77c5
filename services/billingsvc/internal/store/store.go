// Package store keeps the books in Postgres, in the schema billing.
package store

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// Schema is the schema that Migrations describe.
const Schema = "billing"

// Migrations are the files of the schema.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Store implements billing.Store.
type Store struct {
	// Stall is how long a replica may do nothing in the middle of booking a page
	// before the database ends its transaction, so that another can take its log
	// over. Set it before use.
	Stall time.Duration

	db *pgxpool.Pool
}

var _ billing.Store = (*Store)(nil)

// New makes a store. The pool stays the caller's.
func New(db *pgxpool.Pool) *Store { return &Store{Stall: 15 * time.Second, db: db} }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

// Cursors returns how far each log has been billed.
func (s *Store) Cursors(ctx context.Context) (map[int64]billing.Cursor, error) {
	rows, _ := s.db.Query(ctx, `select log_id, seq, closed from billing.cursors`)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Cursor])
	if err != nil {
		return nil, fmt.Errorf("read cursors: %w", err)
	}
	cursors := make(map[int64]billing.Cursor, len(list))
	for _, c := range list {
		cursors[c.LogID] = c
	}
	return cursors, nil
}

// balanceColumns are the fields of billing.Balance, of a table named b.
const balanceColumns = `b.team_id, b.billed_nano_usd, b.charged_nano_usd, b.carried_nano_usd, b.posted_nano_usd,
	b.granted_nano_usd, b.next_charge_seq, b.sink_balance_credits, b.open_drift_nano_usd,
	b.gate_state, b.gate_reason, b.gate_basis, b.gate_unlimited, b.gate_changed_at, b.grace_until,
	b.gate_generation, b.announced_generation, b.announce_error`

// Balance returns where a team's money stands; zero sums for a team that was
// never billed.
func (s *Store) Balance(ctx context.Context, teamID string) (billing.Balance, error) {
	rows, _ := s.db.Query(ctx, `
		select `+balanceColumns+`
		from billing.balances b
		where b.team_id = @team_id`,
		pgx.StrictNamedArgs{"team_id": teamID})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Balance])
	if err != nil {
		return billing.Balance{}, fmt.Errorf("read balance: %w", err)
	}
	if len(list) == 0 {
		return billing.NewBalance(teamID), nil
	}
	return list[0], nil
}

// Balances lists balances by team.
func (s *Store) Balances(ctx context.Context, q billing.BalanceQuery) ([]billing.Balance, error) {
	rows, _ := s.db.Query(ctx, `
		select `+balanceColumns+`
		from billing.balances b
		where b.team_id > @after and (@state = '' or b.gate_state = @state)
		order by b.team_id
		limit @limit`,
		pgx.StrictNamedArgs{"after": q.After, "state": string(q.State), "limit": q.Limit})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Balance])
	if err != nil {
		return nil, fmt.Errorf("list balances: %w", err)
	}
	return list, nil
}
