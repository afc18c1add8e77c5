package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
)

func TestIsUnavailableByCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"nothing", nil, false},
		{"admin shutdown", code("57P01"), true},
		{"crash shutdown", code("57P02"), true},
		{"starting up", code("57P03"), true},
		{"too many connections", code("53300"), true},
		{"read only after a failover", code("25006"), true},
		{"disk full", code("53100"), true},
		{"connection failure", code("08006"), true},
		{"wrapped", fmt.Errorf("list keys: %w", code("57P01")), true},
		{"cut off in an answer", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		{"closed connection", fmt.Errorf("begin: %w", pgconn.ErrConnClosed), true},
		{"connection reset", fmt.Errorf("read: %w", &net.OpError{Op: "read", Err: syscall.ECONNRESET}), true},
		{"query cancelled", code("57014"), false},
		{"unique violation", code("23505"), false},
		{"serialization failure", code("40001"), false},
		{"no rows", pgx.ErrNoRows, false},
		{"caller gone", context.Canceled, false},
		{"caller out of time", context.DeadlineExceeded, false},
		{"anything else", errors.New("disk full"), false},
	} {
		if got := pg.IsUnavailable(c.err); got != c.want {
			t.Errorf("%s: IsUnavailable(%v) = %v, want %v", c.name, c.err, got, c.want)
		}
	}
}

func TestIsUnavailableOnARealServer(t *testing.T) {
	t.Parallel()
	s, err := pglocal.Start(t.Context(), pglocal.Options{Ephemeral: true, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	pool, err := pg.Open(t.Context(), s.URL(), pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	exec := func(ctx context.Context, sql string) error {
		_, err := pool.Exec(ctx, sql)
		return err
	}
	check := func(what string, err error, want bool) {
		t.Helper()
		if err == nil || pg.IsUnavailable(err) != want {
			t.Errorf("%s: IsUnavailable(%v) = %v, want %v", what, err, !want, want)
		}
	}

	check("own backend terminated", exec(t.Context(), `select pg_terminate_backend(pg_backend_pid())`), true)
	check("read only", exec(t.Context(), `begin read only; create table t (id int)`), true)
	check("nonsense", exec(t.Context(), `selekt`), false)
	check("division by zero", exec(t.Context(), `select 1/0`), false)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	check("caller gone", exec(cancelled, `select 1`), false)
	_, err = pgx.Connect(cancelled, s.URL())
	check("caller gone before connecting", err, false)
	late, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	check("caller out of time", exec(late, `select pg_sleep(60)`), false)

	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	stop()
	_, err = conn.Exec(t.Context(), `select 1`)
	check("server gone while connected", err, true)
	_, err = conn.Exec(t.Context(), `select 1`)
	check("on the connection that has failed", err, true)
	check("server gone", exec(t.Context(), `select 1`), true)
	_, err = pg.Open(t.Context(), s.URL(), pg.Options{})
	check("open without a server", err, true)
}

func TestConstraint(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `create temp table k (budget int constraint budget_not_negative check (budget >= 0));
		insert into k values (-1)`)
	if got := pg.Constraint(fmt.Errorf("issue key: %w", err)); got != "budget_not_negative" {
		t.Errorf("Constraint(%v) = %q", err, got)
	}
	if got := pg.Constraint(errors.New("violates constraint")); got != "" {
		t.Errorf("Constraint of another error = %q, want none", got)
	}
}

func code(c string) error { return &pgconn.PgError{Code: c} }
