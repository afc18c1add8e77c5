// Package store keeps keys, teams, events and the audit in Postgres, in the
// schema "keys". It decides nothing: the rules are in package key.
package store

import (
	"context"
	"embed"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// Schema is where everything is.
const Schema = "keys"

// Migrations are the files that make the schema.
//
//go:embed migrations/*.sql
var Migrations embed.FS

var _ key.Store = (*Store)(nil)

// Store is a key.Store and a watch.Log on a pool.
type Store struct {
	db      *pgxpool.Pool
	timeout time.Duration
}

// New makes a store. The schema must be up to date.
func New(db *pgxpool.Pool) *Store { return &Store{db: db, timeout: 5 * time.Second} }

// do runs f within the store's time limit and turns the errors of a database
// that cannot be reached, or does not answer in time, into one fault.
func (s *Store) do(ctx context.Context, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := f(bounded)
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	late := bounded.Err() != nil && ctx.Err() == nil
	if late || pg.IsUnavailable(err) {
		return fault.Wrap(fault.Unavailable, err, "the key store is not reachable; try again")
	}
	return err
}

// Change implements key.Store.
func (s *Store) Change(ctx context.Context, f func(context.Context, key.Tx) error) error {
	return s.do(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.db, func(t pgx.Tx) error { return f(ctx, tx{t}) })
	})
}

// tx implements key.Tx.
type tx struct{ pgx.Tx }
