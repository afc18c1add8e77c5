// Package pgmigrate brings one schema of a PostgreSQL database up to date from
// the SQL files compiled into a service. It goes forward only, and it refuses
// any schema that is not, or is no longer, the one those files describe.
//
// A migration is a file NNNN_name.sql, at the root of the file system or in a
// folder migrations. It names the schema in every statement (search_path is
// left alone), runs in a transaction together with its record in
// SCHEMA.migrations, and so may not contain commit.
package pgmigrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
)

// The refusals of Up and Check. Errors that match them say which database and
// schema are meant and what to do; nothing has been written.
var (
	// ErrForeign: the schema exists, holds objects, and is not ours.
	ErrForeign = errors.New("schema belongs to someone else")
	// ErrNewer: a migration is recorded that this binary does not have.
	ErrNewer = errors.New("schema is newer than this binary")
	// ErrChanged: a migration was edited after it had been applied.
	ErrChanged = errors.New("applied migration was changed")
	// ErrPending: migrations are missing. Only Check says so; Up applies them.
	ErrPending = errors.New("migrations are pending")
)

// Up applies the migrations in files that schema lacks, oldest first, each in a
// transaction of its own: when one fails, those before it stay. It creates the
// schema if need be. Any number of processes may call it at once; all of them
// return when the work is done. Conn must not be in a transaction.
func Up(ctx context.Context, conn *pgx.Conn, schema string, files fs.FS) error {
	m, err := load(schema, files)
	if err != nil {
		return err
	}
	for {
		more, err := m.step(ctx, conn)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
	}
}

// Check returns nil if schema is exactly as files describe it, ErrPending if Up
// would have something to do, and otherwise the refusal that Up would give. It
// needs no more than the right to read SCHEMA.migrations.
func Check(ctx context.Context, conn *pgx.Conn, schema string, files fs.FS) error {
	m, err := load(schema, files)
	if err != nil {
		return err
	}
	var pending []migration
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, opts, func(tx pgx.Tx) error {
		s, err := m.inspect(ctx, tx)
		pending = s.pending
		return err
	})
	if err != nil || len(pending) == 0 {
		return err
	}
	var database string
	if err := conn.QueryRow(ctx, `select current_database()`).Scan(&database); err != nil {
		return fmt.Errorf("check schema %q: %w", schema, err)
	}
	return m.refuse(conn, database, ErrPending,
		fmt.Sprintf("%s and %d more are missing; run this program's migrate command", pending[0].name, len(pending)-1))
}

// step applies the first pending migration, if any, and reports whether it did.
// The lock is held by the transaction, so it also works through a pooler and
// cannot be left behind.
func (m *migrations) step(ctx context.Context, conn *pgx.Conn) (bool, error) {
	more := false
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, m.lock); err != nil {
			return fmt.Errorf("lock schema %q: %w", m.schema, err)
		}
		s, err := m.inspect(ctx, tx)
		if err != nil || len(s.pending) == 0 {
			return err
		}
		more = true
		if err := m.prepare(ctx, tx, s); err != nil {
			return err
		}
		return m.apply(ctx, tx, s.pending[0])
	})
	return more, err
}

// prepare creates what of the schema and its migrations table is absent.
// "create schema if not exists" would ask for the right to create schemas even
// when there is nothing to create.
func (m *migrations) prepare(ctx context.Context, tx pgx.Tx, s state) error {
	if !s.exists {
		if _, err := tx.Exec(ctx, `create schema `+pgx.Identifier{m.schema}.Sanitize()); err != nil {
			return fmt.Errorf("create schema %q: %w", m.schema, err)
		}
	}
	if !s.ours {
		_, err := tx.Exec(ctx, `
			create table `+m.table()+` (
				name       text        not null primary key,
				checksum   text        not null,
				applied_at timestamptz not null default now()
			)`)
		if err != nil {
			return fmt.Errorf("create %s: %w", m.table(), err)
		}
	}
	return nil
}

func (m *migrations) apply(ctx context.Context, tx pgx.Tx, f migration) error {
	// Without arguments pgx uses the simple protocol, which takes many statements.
	if _, err := tx.Exec(ctx, f.sql); err != nil {
		return fmt.Errorf("migrate schema %q: %s: %w", m.schema, f.name, err)
	}
	_, err := tx.Exec(ctx, `insert into `+m.table()+` (name, checksum) values (@name, @checksum)`,
		pgx.StrictNamedArgs{"name": f.name, "checksum": f.checksum})
	if err != nil {
		return fmt.Errorf("record migration %s: %w", f.name, err)
	}
	return nil
}
