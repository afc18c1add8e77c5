package pg_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
)

func TestOpenSetsUpSessions(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pgtest.Empty(t), pg.Options{MaxConns: 3, ApplicationName: "keysvc"})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var got struct {
		Application, Zone string
		At                time.Time
	}
	err = pool.QueryRow(t.Context(), `
		select current_setting('application_name'), current_setting('timezone'), timestamptz '2024-02-29 12:00+02'`).
		Scan(&got.Application, &got.Zone, &got.At)
	if err != nil {
		t.Fatal(err)
	}
	if got.Application != "keysvc" || got.Zone != "UTC" {
		t.Errorf("session = %+v, want keysvc in UTC", got)
	}
	if want := time.Date(2024, 2, 29, 10, 0, 0, 0, time.UTC); got.At != want { // the location too
		t.Errorf("time = %v, want %v", got.At, want)
	}
	if got := pool.Config().MaxConns; got != 3 {
		t.Errorf("MaxConns = %d, want 3", got)
	}
}

func TestOpenHonoursTheURL(t *testing.T) {
	t.Parallel()
	u := pgtest.Empty(t) + "&application_name=mine&pool_max_conns=2&connect_timeout=7&timezone=Asia/Tokyo&jit=on"
	pool, err := pg.Open(t.Context(), u, pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	cfg := pool.Config()
	got := map[string]any{
		"application_name": cfg.ConnConfig.RuntimeParams["application_name"],
		"max_conns":        cfg.MaxConns,
		"connect_timeout":  cfg.ConnConfig.ConnectTimeout,
		"timezone":         cfg.ConnConfig.RuntimeParams["timezone"],
		"jit":              cfg.ConnConfig.RuntimeParams["jit"],
	}
	want := map[string]any{
		"application_name": "mine", "max_conns": int32(2), "connect_timeout": 7 * time.Second,
		"timezone": "UTC", // not for the URL to choose
		"jit":      "on",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// TestNothingIsCompiled looks at a session of a pool whose URL says nothing of it.
func TestNothingIsCompiled(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pgtest.Empty(t), pg.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var jit string
	if err := pool.QueryRow(t.Context(), `show jit`).Scan(&jit); err != nil || jit != "off" {
		t.Errorf("jit is %s, %v", jit, err)
	}
}

func TestErrorsNeverContainThePassword(t *testing.T) {
	t.Parallel()
	good, err := url.Parse(pgtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	// Parts of it are distinct words, as a parser may split it anywhere.
	at := func(password string) string { return "postgres://llmproxy:" + password + "@" + good.Host }
	for name, u := range map[string]string{
		"it is wrong":                 at("HUNTERTWO") + "/llmproxy?sslmode=disable",
		"the database does not exist": strings.Replace(good.String(), good.Path, "/absent", 1),
		"nothing listens":             "postgres://me:HUNTERTWO@127.0.0.1:1/db",
		"it has a bad escape":         at("HUNTER%zzTWO") + "/db",
		"it has a slash":              at("HUNTER/TWO") + "/db",
		"it looks like a port":        at("5432/HUNTERTWO") + "/db",
		"it has an at sign":           at("HUNTER@TWO") + "/db",
		"it has a hash":               at("HUNTER#TWO") + "/db",
		"it has a question mark":      at("HUNTER?TWO") + "/db",
		"it has a colon":              at("HUNTER:TWO") + ":x/db",
		"the port is wrong":           "postgres://me:HUNTERTWO@127.0.0.1:port/db",
		"the ssl mode is wrong":       at("HUNTERTWO") + "/db?sslmode=requier",
		"a pool setting is wrong":     at("HUNTERTWO") + "/db?pool_max_conns=many",
		"it is in the query":          "postgres://me@127.0.0.1:port/db?password=HUNTERTWO",
		"the string is keywords":      "host=127.0.0.1 port=x password=HUNTERTWO",
		"the keywords are ill quoted": "host=127.0.0.1 password='HUNTER TWO",
		"the scheme is another":       "mysql://me:HUNTERTWO@127.0.0.1/db",
		"the scheme is absent":        "me:HUNTERTWO@127.0.0.1/db",
	} {
		pool, err := pg.Open(t.Context(), u, pg.Options{ConnectTimeout: 2 * time.Second})
		if err == nil {
			pool.Close()
			t.Errorf("when %s: no error", name)
			continue
		}
		password, _ := good.User.Password()
		for _, part := range []string{"HUNTER", "TWO", password} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("when %s: the error contains %q of the password: %v", name, part, err)
			}
		}
	}
}

// TestAPoolLeavesConnectionsThatCannotWrite makes the database read only, as after
// a failover or when its disk is full, and lets it be written again: the pool needs
// no restart, although its sessions stay as they were.
func TestAPoolLeavesConnectionsThatCannotWrite(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pgtest.Empty(t), pg.Options{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	name := pgx.Identifier{pool.Config().ConnConfig.Database}.Sanitize()
	admin, err := pgx.Connect(t.Context(), pool.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	set := func(readOnly string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), `alter database `+name+` set default_transaction_read_only = `+readOnly); err != nil {
			t.Fatal(err)
		}
	}
	write := func() error {
		_, err := pool.Exec(t.Context(), `create table if not exists written (id bigint)`)
		return err
	}
	set("on")
	pool.Reset() // as the failover ends all sessions
	if err := write(); !pg.IsUnavailable(err) {
		t.Errorf("writing to a read-only database: %v, want unavailable", err)
	}
	if _, err := admin.Exec(t.Context(), `set default_transaction_read_only = off`); err != nil {
		t.Fatal(err)
	}
	set("off")
	if err := write(); err != nil {
		t.Errorf("after it could be written again: %v", err)
	}
	// A session that turns read only itself is left too.
	if _, err := pool.Exec(t.Context(), `set default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("with a session that cannot write in the pool: %v", err)
	}
}
