package pglocal

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

func TestEphemeralServerServesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	s := startT(t, Options{MaxConnections: 33})
	got := settingsOf(t, s, "fsync", "listen_addresses", "max_connections", "TimeZone", "unix_socket_directories", "server_encoding")
	want := map[string]string{
		"fsync": "off", "listen_addresses": "127.0.0.1", "max_connections": "33",
		"TimeZone": "UTC", "unix_socket_directories": "", "server_encoding": "UTF8",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	dir := s.cluster.remove
	if _, err := os.Stat(filepath.Join(dir, "data", "PG_VERSION")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // Stop may be called again
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind (%v)", dir, err)
	}
	if _, err := pgx.Connect(t.Context(), s.URL()); err == nil {
		t.Error("the server still accepts connections")
	}
}

func TestServerIsInAProcessGroupOfItsOwn(t *testing.T) {
	t.Parallel()
	s := startT(t, Options{Ephemeral: true})
	group, err := syscall.Getpgid(postmaster(t, s.cluster.data))
	if err != nil {
		t.Fatal(err)
	}
	if group == syscall.Getpgrp() {
		t.Fatal("the server shares our process group: Ctrl-C would end it")
	}
	// What a terminal or systemd may send to the wrapper does not cut the leash.
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		if err := syscall.Kill(group, sig); err != nil {
			t.Fatal(err)
		}
	}
	settingsOf(t, s, "port")
	stopT(t, s)
	if _, err := os.Stat(s.cluster.remove); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind (%v)", s.cluster.remove, err)
	}
}

func TestPasswordIsNeeded(t *testing.T) {
	t.Parallel()
	s := startT(t, Options{Ephemeral: true})
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, "guess")
	if _, err := pgx.Connect(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("connect with a wrong password: %v, want 28P01", err)
	}
}

func TestDurableServerKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := durableDir(t)
	s := startT(t, Options{Dir: dir})
	if got := settingsOf(t, s, "fsync", "synchronous_commit", "full_page_writes"); got["fsync"] != "on" ||
		got["synchronous_commit"] != "on" || got["full_page_writes"] != "on" {
		t.Errorf("a durable server runs with %v", got)
	}
	execT(t, s, `create table kept as select 42 as answer`)
	password, err := os.Stat(filepath.Join(dir, "password"))
	if err != nil {
		t.Fatal(err)
	}
	if password.Mode().Perm() != 0o600 {
		t.Errorf("mode of the password file is %v, want 0600", password.Mode())
	}

	_, err = Start(t.Context(), Options{Dir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second start: %v, want ErrInUse with our pid and the directory", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "fast shutdown") || !strings.Contains(string(log), "database system is shut down") {
		t.Errorf("not shut down cleanly:\n%s", log)
	}

	// As after a power cut: the pid of a process that is gone.
	stale := filepath.Join(dir, "postgres", "data", "postmaster.pid")
	if err := os.WriteFile(stale, []byte("4194303\n"+filepath.Dir(stale)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.cluster.acct.own(stale); err != nil {
		t.Fatal(err)
	}
	again := startT(t, Options{Dir: dir})
	execT(t, again, `insert into kept values (43)`)
}

// TestDataGoesWherePostgresMayEnter has one case that only root can produce;
// for anybody else both directories are alike.
func TestDataGoesWherePostgresMayEnter(t *testing.T) {
	t.Parallel()
	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir string
		elsewhere bool
	}{
		{"where it may enter, in place", sharedTemp(t), false},
		{"where it may not, in a shared place", durableDir(t), os.Getuid() == 0},
	} {
		home, err := acct.home(t.Context(), c.dir)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := strings.HasPrefix(home, sharedDir+"/"); got != c.elsewhere {
			t.Errorf("%s: home(%q) = %q", c.name, c.dir, home)
		}
		again, err := acct.home(t.Context(), c.dir)
		if err != nil || again != home {
			t.Errorf("%s: the second time home = %q, %v; want %q", c.name, again, err, home)
		}
		if seen, err := filepath.EvalSymlinks(filepath.Join(c.dir, "postgres")); err != nil || seen != home {
			t.Errorf("%s: dir/postgres leads to %q, %v; want %q", c.name, seen, err, home)
		}
		if !acct.may(t.Context(), "-w", home) {
			t.Errorf("%s: %s is not writable", c.name, home)
		}
	}
}

func TestDataOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "postgres", "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("13\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{Dir: dir})
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "PostgreSQL 13") || !strings.Contains(err.Error(), dir) {
		t.Errorf("start: %v, want ErrVersion with 13 and the directory", err)
	}
}

func TestPasswordIsMadeUpOnceAndThenNeeded(t *testing.T) {
	t.Parallel()
	dir, home := t.TempDir(), t.TempDir()
	first, err := readPassword(dir, home)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if again, err := readPassword(dir, home); again != first || err != nil {
		t.Errorf("readPassword = %q, %v; want the first, %q", again, err, first)
	}
	path := filepath.Join(dir, "password")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := readPassword(dir, home); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), home) {
		t.Errorf("readPassword = %v, want what is gone and what needs it", err)
	}
}

func TestTakenPortIsRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Start(t.Context(), Options{Ephemeral: true, Port: l.Addr().(*net.TCPAddr).Port})
	if !errors.Is(err, ErrPort) {
		t.Errorf("start on a taken port: %v, want ErrPort", err)
	}
}

// TestPortLostInTheRace covers what freePort cannot: something binds the port
// after it was found free.
func TestPortLostInTheRace(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := Options{Ephemeral: true, Log: t.Output()}
	c, err := openCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := launch(c, l.Addr().(*net.TCPAddr).Port, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopT(t, s) })
	if err := s.await(t.Context()); !errors.Is(err, ErrPort) {
		t.Errorf("await = %v, want ErrPort", err)
	}
}

func TestServerThatCannotStartShowsItsLog(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Options{Ephemeral: true, MaxConnections: -1})
	if err == nil || !strings.Contains(err.Error(), "outside the valid range") {
		t.Errorf("start: %v, want the reason from the server's log", err)
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	parent := sharedTemp(t)
	o := Options{Dir: parent, Ephemeral: true}
	c, err := openCluster(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := launch(c, 1, o)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // while initdb runs
	if err := s.await(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("await = %v, want context.Canceled", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func startT(t *testing.T, o Options) *Server {
	t.Helper()
	o.Log = t.Output()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopT(t, s) })
	return s
}

func stopT(t *testing.T, s *Server) {
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func connectT(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func execT(t *testing.T, s *Server, sql string) {
	t.Helper()
	if _, err := connectT(t, s).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func settingsOf(t *testing.T, s *Server, names ...string) map[string]string {
	t.Helper()
	rows, _ := connectT(t, s).Query(t.Context(), `select name, setting from pg_settings where name = any($1)`, names)
	got := map[string]string{}
	var name, setting string
	if _, err := pgx.ForEachRow(rows, []any{&name, &setting}, func() error {
		got[name] = setting
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// postmaster returns the process id of the server on data.
func postmaster(t *testing.T, data string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// durableDir returns a directory that only our user may enter, as a home is.
// What a server puts elsewhere because of that is removed too.
func durableDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if home, err := os.Readlink(filepath.Join(dir, "postgres")); err == nil {
			if err := os.RemoveAll(home); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

// sharedTemp returns a directory like /tmp, where every user may create files.
// That of t.TempDir is in one that no other user may enter.
func sharedTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}
