package pgtest_test

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
)

var migrations = fstest.MapFS{
	"migrations/0001_pets.sql": {Data: []byte(`create table shop.pets (name text primary key, born timestamptz)`)},
}

func TestNewGivesEachTestItsOwnMigratedDatabase(t *testing.T) {
	t.Parallel()
	born := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t, "shop", migrations)
			// The same key in every clone: they cannot be one database.
			if _, err := pool.Exec(t.Context(), `insert into shop.pets values ('rex', $1)`, born); err != nil {
				t.Fatal(err)
			}
			var got time.Time
			if err := pool.QueryRow(t.Context(), `select born from shop.pets`).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != born { // the same location too
				t.Errorf("born = %v, want %v", got, born)
			}
		})
	}
}

func TestDatabasesGoAwayWithTheirTest(t *testing.T) {
	t.Parallel()
	var names []string
	ok := t.Run("users", func(t *testing.T) {
		pool := pgtest.New(t, "shop", migrations)
		names = append(names, pool.Config().ConnConfig.Database)
		cfg, err := pgx.ParseConfig(pgtest.Empty(t))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, cfg.Database)
		// Left open on purpose: the drop is forced.
		if _, err := pgx.ConnectConfig(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	})
	if !ok {
		t.Fatal("users failed")
	}
	left := query[string](t, pgtest.Empty(t), `select datname::text from pg_database where datname = any($1)`, names)
	if len(left) > 0 {
		t.Errorf("databases left behind: %v", left)
	}
}

func TestEmptyHasNoTables(t *testing.T) {
	t.Parallel()
	got := query[string](t, pgtest.Empty(t), `select nspname::text from pg_namespace where nspname !~ '^pg_' order by 1`)
	if diff := cmp.Diff([]string{"information_schema", "public"}, got); diff != "" {
		t.Errorf("schemas (-want +got):\n%s", diff)
	}
}

func TestRoleMayCreateSchemasAndNothingElse(t *testing.T) {
	t.Parallel()
	admin := pgtest.Empty(t)
	var role string
	t.Run("owner", func(t *testing.T) {
		other := pgtest.Role(t, admin, "other")
		url := pgtest.Role(t, admin, "owner")
		role = query[string](t, url, `select current_user::text`)[0]
		query[int](t, url, `create schema mine`)
		query[int](t, url, `create table mine.things (id int)`)
		for _, forbidden := range []struct{ url, sql string }{
			{other, `select id from mine.things`},
			{url, `create database more`},
			{url, `create role friend`},
			{url, `select 1 from pg_authid`},
		} {
			conn := connect(t, forbidden.url)
			if _, err := conn.Exec(t.Context(), forbidden.sql); err == nil {
				t.Errorf("%q was allowed", forbidden.sql)
			}
		}
	})
	if left := query[string](t, admin, `select rolname::text from pg_roles where rolname = $1`, role); len(left) > 0 {
		t.Errorf("role %s is left behind", role)
	}
}

func TestServerTellsConstraints(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t, "shop", migrations)
	_, err := pool.Exec(t.Context(), `insert into shop.pets values ('rex'), ('rex')`)
	if got := pg.Constraint(err); got != "pets_pkey" {
		t.Errorf("Constraint(%v) = %q, want pets_pkey", err, got)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

// query returns the only column of a result.
func query[T any](t *testing.T, url, sql string, args ...any) []T {
	t.Helper()
	rows, _ := connect(t, url).Query(t.Context(), sql, args...) // CollectRows reports its error
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}
