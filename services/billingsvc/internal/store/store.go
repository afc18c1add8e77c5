// Package store keeps the books in Postgres, in the schema billing.
package store

import (
	"context"
	"embed"
	"fmt"

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
type Store struct{ db *pgxpool.Pool }

var _ billing.Store = (*Store)(nil)

// New makes a store. The pool stays the caller's.
func New(db *pgxpool.Pool) *Store { return &Store{db} }

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

// Balance returns where a team's money stands; zero sums for a team that was
// never billed.
func (s *Store) Balance(ctx context.Context, teamID string) (billing.Balance, error) {
	rows, _ := s.db.Query(ctx, `
		select team_id, billed_nano_usd, charged_nano_usd, carried_nano_usd, posted_nano_usd,
			next_charge_seq, sink_balance_credits
		from billing.balances
		where team_id = @team_id`,
		pgx.StrictNamedArgs{"team_id": teamID})
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[billing.Balance])
	if err != nil {
		return billing.Balance{}, fmt.Errorf("read balance: %w", err)
	}
	if len(list) == 0 {
		return billing.Balance{TeamID: teamID, NextChargeSeq: 1}, nil
	}
	return list[0], nil
}
