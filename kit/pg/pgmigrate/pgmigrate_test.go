package pgmigrate_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgmigrate"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
)

func files(sql ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i, s := range sql {
		m[fmt.Sprintf("migrations/%04d_step.sql", i+1)] = &fstest.MapFile{Data: []byte(s)}
	}
	return m
}

const (
	createPets = `create table shop.pets (name text primary key); insert into shop.pets values ('rex')`
	addAge     = `alter table shop.pets add age int not null default 1`
)

func TestUpAppliesEachFileOnceInOrder(t *testing.T) {
	t.Parallel()
	conn := empty(t)
	up(t, conn, files(createPets))
	for range 2 {
		up(t, conn, files(createPets, addAge, `update shop.pets set age = age + 1`))
	}
	if got := query[int](t, conn, `select age from shop.pets`); !cmp.Equal(got, []int{2}) {
		t.Errorf("age = %v, want [2]", got)
	}
	got := query[string](t, conn, `select name from shop.migrations where applied_at <= now() order by name`)
	if diff := cmp.Diff([]string{"0001_step.sql", "0002_step.sql", "0003_step.sql"}, got); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if got := query[string](t, conn, `show search_path`); got[0] != `"$user", public` {
		t.Errorf("search_path = %q, want it untouched", got)
	}
}

func TestUpReadsTheRootToo(t *testing.T) {
	t.Parallel()
	conn := empty(t)
	up(t, conn, fstest.MapFS{
		"0002_age.sql":  {Data: []byte(addAge)},
		"0001_pets.sql": {Data: []byte(createPets)},
		"README.md":     {Data: []byte("not a migration")},
	})
	query[int](t, conn, `select age from shop.pets`)
}

func TestFailedMigrationLeavesThoseBeforeIt(t *testing.T) {
	t.Parallel()
	conn := empty(t)
	broken := files(createPets, `create table shop.half (id int); select 1/0`)
	err := pgmigrate.Up(t.Context(), conn, "shop", broken)
	if err == nil || !strings.Contains(err.Error(), "0002_step.sql") || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("Up = %v, want the file and the reason", err)
	}
	if diff := cmp.Diff([]string{"migrations", "pets"}, tables(t, conn)); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	up(t, conn, files(createPets, addAge))
}

func TestFailedFirstMigrationLeavesNothing(t *testing.T) {
	t.Parallel()
	conn := empty(t)
	if err := pgmigrate.Up(t.Context(), conn, "shop", files(`selekt`)); err == nil {
		t.Fatal("Up of nonsense succeeded")
	}
	if got := query[string](t, conn, `select nspname::text from pg_namespace where nspname = 'shop'`); len(got) > 0 {
		t.Error("the schema is left behind")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ours := files(createPets, addAge)
	for _, c := range []struct {
		name  string
		setup func(*testing.T, *pgx.Conn)
		up    error
		check error
		says  string
	}{
		{"an empty database is pending", func(*testing.T, *pgx.Conn) {}, nil, pgmigrate.ErrPending, "0001_step.sql and 1 more"},
		{"an empty schema is ours to take", run(`create schema shop`), nil, pgmigrate.ErrPending, "0001_step.sql and 1 more"},
		{"a half migrated schema is pending", migrated(files(createPets)), nil, pgmigrate.ErrPending, "0002_step.sql and 0 more"},
		{"the schema as described is fine", migrated(ours), nil, nil, ""},
		{"a schema with a table is foreign", run(`create schema shop; create table shop.orders (id int)`), pgmigrate.ErrForeign, pgmigrate.ErrForeign, "another database"},
		{"a schema with a function is foreign", run(`create schema shop; create function shop.one() returns int language sql return 1`), pgmigrate.ErrForeign, pgmigrate.ErrForeign, "another database"},
		{"a schema with an enum is foreign", run(`create schema shop; create type shop.size as enum ('s')`), pgmigrate.ErrForeign, pgmigrate.ErrForeign, "another database"},
		{"another tool's migrations table is foreign", run(`create schema shop; create table shop.migrations (id int, name text, batch int)`), pgmigrate.ErrForeign, pgmigrate.ErrForeign, "another database"},
		{"an unknown migration is newer", migrated(files(createPets, addAge, `select 1`)), pgmigrate.ErrNewer, pgmigrate.ErrNewer, "0003_step.sql"},
		{"an edited migration is changed", migrated(files(createPets + ` `)), pgmigrate.ErrChanged, pgmigrate.ErrChanged, "0001_step.sql"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := empty(t)
			c.setup(t, conn)
			before := snapshot(t, conn)
			err := pgmigrate.Check(t.Context(), conn, "shop", ours)
			wantRefusal(t, conn, "Check", err, c.check, c.says)
			if diff := cmp.Diff(before, snapshot(t, conn)); diff != "" {
				t.Errorf("Check wrote (-before +after):\n%s", diff)
			}
			err = pgmigrate.Up(t.Context(), conn, "shop", ours)
			wantRefusal(t, conn, "Up", err, c.up, c.says)
			if c.up == nil {
				if err := pgmigrate.Check(t.Context(), conn, "shop", ours); err != nil {
					t.Errorf("Check after Up: %v", err)
				}
			} else if diff := cmp.Diff(before, snapshot(t, conn)); diff != "" {
				t.Errorf("Up wrote (-before +after):\n%s", diff)
			}
		})
	}
}

// TestUpFromManyProcesses uses one connection each, as processes do. The SQL
// fails if it is run twice.
func TestUpFromManyProcesses(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	g, ctx := errgroup.WithContext(t.Context())
	start := make(chan struct{})
	for range 8 {
		conn := connect(t, url)
		g.Go(func() error {
			<-start
			return pgmigrate.Up(ctx, conn, "shop", files(createPets, addAge, `create table shop.toys (id int)`))
		})
	}
	close(start)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"migrations", "pets", "toys"}, tables(t, connect(t, url))); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

func TestSchemasMigrateApart(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	owner := connect(t, pgtest.Role(t, url, "owner"))
	up(t, owner, files(createPets))
	if err := pgmigrate.Up(t.Context(), owner, "farm", files(`create table farm.cows (id int)`)); err != nil {
		t.Fatal(err)
	}
	// A role that may no longer create schemas migrates what exists.
	query[int](t, connect(t, url), `do $$ begin
		execute format('revoke create on database %I from %I', current_database(),
			(select nspowner::regrole::text from pg_namespace where nspname = 'farm')); end $$`)
	up(t, owner, files(createPets, addAge))
	if err := pgmigrate.Check(t.Context(), owner, "farm", files(`create table farm.cows (id int)`)); err != nil {
		t.Error(err)
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]fstest.MapFS{
		"none":                 {},
		"a name like no other": {"init.sql": {}},
		"two with one number":  {"0001_a.sql": {}, "migrations/0001_b.sql": {}},
	} {
		if err := pgmigrate.Up(t.Context(), nil, "shop", f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func wantRefusal(t *testing.T, conn *pgx.Conn, what string, err, want error, says string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want %v", what, err, want)
		return
	}
	if want == nil {
		return
	}
	for _, part := range []string{`"shop"`, `"` + conn.Config().Database + `"`, conn.Config().Host, says} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s = %q, want %q in it", what, err, part)
		}
	}
}

func run(sql string) func(*testing.T, *pgx.Conn) {
	return func(t *testing.T, conn *pgx.Conn) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

func migrated(f fstest.MapFS) func(*testing.T, *pgx.Conn) {
	return func(t *testing.T, conn *pgx.Conn) { up(t, conn, maps.Clone(f)) }
}

// snapshot returns all that is in the schema, with what is on record.
func snapshot(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	objects := query[string](t, conn, `
		select 'schema ' || nspname from pg_namespace where nspname = 'shop'
		union all select 'table ' || relname from pg_class where relnamespace = to_regnamespace('shop')
		order by 1`)
	if len(query[bool](t, conn, `select true where to_regclass('shop.migrations') is not null`)) == 0 {
		return objects
	}
	return append(objects, query[string](t, conn, `select m::text from shop.migrations m order by 1`)...)
}

func tables(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	return query[string](t, conn, `select tablename::text from pg_tables where schemaname = 'shop' order by 1`)
}

func up(t *testing.T, conn *pgx.Conn, f fstest.MapFS) {
	t.Helper()
	if err := pgmigrate.Up(t.Context(), conn, "shop", f); err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T) *pgx.Conn {
	t.Helper()
	return connect(t, pgtest.Empty(t))
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// query returns the only column of a result.
func query[T any](t *testing.T, conn *pgx.Conn, sql string) []T {
	t.Helper()
	rows, _ := conn.Query(t.Context(), sql) // CollectRows reports its error
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}
