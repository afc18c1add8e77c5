// Package pgtest gives tests databases of their own on a real PostgreSQL.
//
// The server is the one that TEST_DATABASE_URL leads to, as superuser, else a
// throw-away one that is started once per test process and ends with it. Tests
// are never skipped: without a server they fail. All of it may be used from
// parallel tests, and by several processes on one server.
package pgtest

import (
	"context"
	"crypto/rand"
	"io/fs"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// New returns a pool on a fresh database in which schema has been migrated. The
// database is copied from a template that is built once for each set of files,
// so this takes well under a tenth of a second. Pool and database go away with
// the test.
func New(t testing.TB, schema string, migrations fs.FS) *pgxpool.Pool {
	t.Helper()
	admin := server(t)
	template, err := ensureTemplate(t.Context(), admin, schema, migrations)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return openPool(t, create(t, admin, " template "+template+" strategy file_copy"))
}

// Empty returns the URL, as superuser, of a fresh empty database that goes away
// with the test, whoever may be connected then.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, server(t), "")
}

// Role creates a role that may connect to the database, create schemas in it and
// nothing else, and returns the URL by which it does so. Its name begins with
// name, made unique on the server. DatabaseURL must be a superuser's, as that of
// Empty. The role and all it owns in that database go away with the test.
func Role(t testing.TB, databaseURL, name string) string {
	t.Helper()
	u := parse(t, databaseURL)
	role, password := unique(name), rand.Text()
	ident := pgx.Identifier{role}.Sanitize()
	database := pgx.Identifier{strings.TrimPrefix(u.Path, "/")}.Sanitize()
	exec(t.Context(), t, databaseURL,
		`create role `+ident+` login password '`+password+`'`,
		`grant connect, create on database `+database+` to `+ident)
	t.Cleanup(func() {
		ctx, cancel := cleanupContext(t)
		defer cancel()
		exec(ctx, t, databaseURL, `drop owned by `+ident+` cascade`, `drop role `+ident)
	})
	u.User = url.UserPassword(role, password)
	return u.String()
}

// create makes a database that is dropped in cleanup and returns its URL.
func create(t testing.TB, admin, options string) string {
	t.Helper()
	name := unique("test")
	exec(t.Context(), t, admin, `create database `+name+options)
	t.Cleanup(func() {
		ctx, cancel := cleanupContext(t)
		defer cancel()
		exec(ctx, t, admin, `drop database `+name+` with (force)`)
	})
	u := parse(t, admin)
	u.Path = "/" + name
	return u.String()
}

// openPool mirrors what pg.Open does for services: sessions and times in UTC, and
// statements are not compiled.
func openPool(t testing.TB, databaseURL string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		t.Fatalf("pgtest: parse url: %v", err)
	}
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	cfg.ConnConfig.RuntimeParams["jit"] = "off"
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID,
			Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("pgtest: open pool: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// SomeoneWaits says whether a session of a pool's database waits for a lock.
func SomeoneWaits(t testing.TB, pool *pgxpool.Pool) bool {
	t.Helper()
	var waits bool
	err := pool.QueryRow(t.Context(), `
		select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')`).Scan(&waits)
	if err != nil {
		t.Fatalf("pgtest: look for who waits: %v", err)
	}
	return waits
}

// exec runs statements on a connection of its own. Failures, in cleanup too,
// fail the test.
func exec(ctx context.Context, t testing.TB, databaseURL string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("pgtest: %s: %v", strings.Fields(sql)[:2], err)
		}
	}
}

// cleanupContext outlives the test's own context, which has ended by then.
func cleanupContext(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
}

func parse(t testing.TB, databaseURL string) *url.URL {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal("pgtest: database url is not a url") // err would show the password
	}
	return u
}

// unique appends 130 random bits to a name.
func unique(name string) string {
	return name + "_" + strings.ToLower(rand.Text())
}
