package chaos

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
)

// postgres is a durable server that can be stopped in every way and started
// again on the same port.
type postgres struct {
	dir    string
	port   int
	server *pglocal.Server
}

// newPostgres starts one that lives as long as the test.
func newPostgres(t *testing.T) *postgres {
	t.Helper()
	dir, err := os.MkdirTemp("", "llmproxy-chaos-pg-") //nolint:usetesting // Postgres's user may not enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // Postgres's user must enter it
		t.Fatal(err)
	}
	p := &postgres{dir: dir}
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := p.server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(p.server.URL())
	if err != nil {
		t.Fatal("the server's url is not a url")
	}
	if p.port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	// Only processes die here, not the machine, so that what was written is safe
	// without fsync; with it a recovery syncs every file and takes seconds.
	p.exec(t, "alter system set fsync = off")
	p.exec(t, "select pg_reload_conf()")
	return p
}

// exec runs a statement as superuser.
func (p *postgres) exec(t *testing.T, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatal(err)
	}
}

// start tries until the server runs: after a crash its orphans must end first.
func (p *postgres) start(ctx context.Context) error {
	for {
		server, err := pglocal.Start(ctx, pglocal.Options{Dir: p.dir, Port: p.port, MaxConnections: 100})
		if err == nil {
			p.server = server
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return err
		}
	}
}

// The ways in which Postgres ends.
const (
	fast      = "fast"      // clients are cut, transactions rolled back, a checkpoint
	immediate = "immediate" // no checkpoint: it recovers from its log
	crash     = "crash"     // kill -9 of the postmaster
)

// stop ends the server in one of these ways and returns when it is gone.
func (p *postgres) stop(ctx context.Context, how string) error {
	signals := map[string]syscall.Signal{immediate: syscall.SIGQUIT, crash: syscall.SIGKILL}
	if how != fast {
		pid, err := p.pid()
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, signals[how]); err != nil {
			return fmt.Errorf("kill postgres: %w", err)
		}
		select {
		case <-p.server.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.server.Stop(ctx)
}

func (p *postgres) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "postgres", "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// addr is where it listens.
func (p *postgres) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// database makes an empty database for the test, and returns its URL by way of an
// address.
func (p *postgres) database(t *testing.T, name string) (through func(addr string) string) {
	t.Helper()
	ident := pgx.Identifier{name}.Sanitize()
	p.exec(t, "create database "+ident)
	t.Cleanup(func() { p.exec(t, "drop database "+ident+" with (force)") })
	u, err := url.Parse(p.server.URL())
	if err != nil {
		t.Fatal("the server's url is not a url")
	}
	u.Path = "/" + name
	return func(addr string) string {
		other := *u
		other.Host = addr
		return other.String()
	}
}

// pause waits, and is false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
