// Package store keeps the ledger in Postgres, schema spend. Every write belongs
// to a log and moves it on by one batch, in the same transaction, so that a
// replica that was taken for dead can write nothing more.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// Schema is the schema that Migrations build.
const Schema = "spend"

// Migrations are the schema's migrations.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Store keeps the ledger.
type Store struct {
	db    *pgxpool.Pool
	plain plain // of the writer's goroutine
}

// New makes a store on a migrated database.
func New(db *pgxpool.Pool) *Store {
	return &Store{db: db, plain: plain{owners: map[owner]*bare{}}}
}

var _ ledger.Store = (*Store)(nil)

// patience bounds one call of the writer, so that a database that hangs counts
// as one that is away.
const patience = 10 * time.Second

// The codes of spend.advance: the log is fenced, or accounts got shared rows that the
// batch does not know of.
const (
	fenced   = "LP001"
	newRound = "LP003"
)

// explain says what a caller can do about a database error.
func explain(doing string, err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == fenced {
		return fmt.Errorf("%s: %w", doing, ledger.ErrFenced)
	}
	if pg.IsUnavailable(err) || isPassing(err) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("%s: %w", doing, err), "the ledger is not reachable; try again")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// isPassing says whether Postgres gave up for a reason that has nothing to do with
// what it was given: the same again may work.
func isPassing(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch e.Code {
	case "40001", "40P01", // serialization failure, deadlock
		"55P03", "57014", // a lock or the statement took too long
		"25P03",          // the session was silent in a transaction
		"53200", "58030": // no memory, an I/O error
		return true
	}
	return false
}

// LedgerID names this ledger among all.
func (s *Store) LedgerID(ctx context.Context) (string, error) {
	var id string
	if err := s.db.QueryRow(ctx, `select id::text from spend.ledger`).Scan(&id); err != nil {
		return "", explain("read the ledger's name", err)
	}
	return id, nil
}

// OpenLog starts a new log.
func (s *Store) OpenLog(ctx context.Context, instance string) (ledger.Open, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var o ledger.Open
	err := s.db.QueryRow(ctx, `
		with log as (insert into spend.logs (instance) values (@instance) returning log_id, batch, last_seq),
		  uncounted as (insert into spend.counted (log_id) select log_id from log)
		select log_id, batch, last_seq from log`,
		pgx.StrictNamedArgs{"instance": instance}).Scan(&o.LogID, &o.Batch, &o.LastSeq)
	if err != nil {
		return o, explain("open a log", err)
	}
	return o, nil
}

// ReadLog tells how far a log is, and makes sure that a batch which is not on it
// never will be. It waits for one that is still being committed. Asked again, it
// says the same: behind a batch whose outcome is unknown comes no other.
func (s *Store) ReadLog(ctx context.Context, logID, batch int64) (ledger.Open, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o := ledger.Open{LogID: logID}
	var isFenced bool
	err := s.db.QueryRow(ctx, `
		update spend.logs set batch = case when batch = @batch - 1 and fenced_at is null and closed_at is null then @batch + 1 else batch end
		where log_id = @log_id
		returning batch, last_seq, fenced_at is not null or closed_at is not null`,
		pgx.StrictNamedArgs{"log_id": logID, "batch": batch}).Scan(&o.Batch, &o.LastSeq, &isFenced)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && isFenced:
		return o, fmt.Errorf("read log %d: %w", logID, ledger.ErrFenced)
	case err != nil:
		return o, explain("read a log", err)
	}
	return o, nil
}

// CloseLog closes the own log if no request of it is open.
func (s *Store) CloseLog(ctx context.Context, logID int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.db.Exec(ctx, `
		update spend.logs l set closed_at = clock_timestamp()
		where log_id = @log_id and fenced_at is null and closed_at is null
		  and not exists (select from spend.open_requests o where o.log_id = l.log_id)
		  and not exists (select from spend.logs t where t.settler = l.log_id and t.closed_at is null)`,
		pgx.StrictNamedArgs{"log_id": logID})
	if err != nil {
		return explain("close the log", err)
	}
	return nil
}

// EnsureAccounts makes the shared rows of accounts that got a limit, and of their
// windows.
func (s *Store) EnsureAccounts(ctx context.Context, claims []ledger.Claim) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var kinds, ids, windows []string
	for _, c := range claims {
		kinds, ids = append(kinds, c.Account.Kind), append(ids, clean(c.Account.Name()))
		windows = append(windows, strings.Join(c.Limits.Windows(), " "))
	}
	err := s.db.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		_, err := c.Exec(ctx, `select spend.ensure_accounts(@kinds, @ids, @windows)`,
			pgx.StrictNamedArgs{"kinds": kinds, "ids": ids, "windows": windows})
		if err != nil {
			return err
		}
		return s.plain.update(ctx, c)
	})
	if err != nil {
		return explain("make accounts", err)
	}
	return nil
}

// EnsurePartitions makes the partitions of today (UTC) and the next days.
func (s *Store) EnsurePartitions(ctx context.Context, today time.Time, days int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := s.db.Exec(ctx, `select spend.ensure_partitions(@day::date, @days::integer)`,
		pgx.StrictNamedArgs{"day": today.UTC().Format(time.DateOnly), "days": days})
	if err != nil {
		return explain("make partitions", err)
	}
	return nil
}
