// Package pg opens pools of PostgreSQL connections and tells what went wrong
// with them. It holds no SQL and hides none of pgx.
package pg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

// Options are what a service may choose about its pool; the zero value works.
type Options struct {
	// MaxConns is the most connections the pool holds. Zero: what the URL says
	// in pool_max_conns, else pgx's default, the number of CPUs but at least 4.
	MaxConns int32
	// ApplicationName is what pg_stat_activity shows. Empty: what the URL says.
	ApplicationName string
	// IdleInTransaction ends a session that is silent for so long in the middle of
	// a transaction, as that of a frozen process is: its locks go with it. Zero:
	// what the server says.
	IdleInTransaction time.Duration
	// ConnectTimeout bounds each attempt to connect. Zero: what the URL says in
	// connect_timeout, else five seconds.
	ConnectTimeout time.Duration
}

const connectTimeout = 5 * time.Second

// Open returns a pool that has reached the database once. Sessions run in UTC,
// and a timestamptz scans as a time in UTC. A session that cannot write is no session
// (unless the URL's target_session_attrs says otherwise), so that the pool finds the
// server that can after a failover. The caller closes the pool.
//
// No error of Open contains the password: one about the URL itself says nothing
// of what is in it, because in a malformed URL nobody knows which part is the
// password. IsUnavailable tells whether trying again later may help.
func Open(ctx context.Context, url string, o Options) (*pgxpool.Pool, error) {
	cfg, err := config(url, o)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return pool, nil
}

// errURL replaces the error of pgx, which keeps the whole URL in a public field
// and redacts its text by guessing.
var errURL = errors.New("database url is malformed: want postgres://USER:PASSWORD@HOST:PORT/DATABASE, " +
	"with special characters in USER and PASSWORD percent-encoded")

func config(url string, o Options) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil || ambiguous(url) {
		return nil, errURL
	}
	if o.MaxConns > 0 {
		cfg.MaxConns = o.MaxConns
	}
	c := cfg.ConnConfig
	if o.ApplicationName != "" {
		c.RuntimeParams["application_name"] = o.ApplicationName
	}
	c.RuntimeParams["timezone"] = "UTC"
	if c.RuntimeParams["jit"] == "" {
		c.RuntimeParams["jit"] = "off" // tables that were never analyzed look large, and compiling takes 20 to 90 ms
	}
	if o.IdleInTransaction > 0 {
		c.RuntimeParams["idle_in_transaction_session_timeout"] = strconv.FormatInt(o.IdleInTransaction.Milliseconds(), 10)
	}
	switch {
	case o.ConnectTimeout > 0:
		c.ConnectTimeout = o.ConnectTimeout
	case c.ConnectTimeout == 0:
		c.ConnectTimeout = connectTimeout
	}
	c.DialFunc = overSock(c.DialFunc)
	cfg.AfterConnect = scanUTC
	if c.ValidateConnect == nil { // the URL does not choose by target_session_attrs
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
		cfg.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) { return canWrite(conn), nil }
	}
	return cfg, nil
}

// overSock has connections read and written past Go's scheduler.
func overSock(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return sock.New(nc)
	}
}

// ambiguous reports whether a special character that is not percent-encoded may
// have made pgx take part of the password for a host or a database, which its
// errors name.
func ambiguous(url string) bool {
	_, rest, ok := strings.Cut(url, "://")
	if !ok {
		return false // keywords and values
	}
	userinfo, rest, ok := strings.Cut(rest, "@")
	return ok && (strings.ContainsAny(userinfo, "/?#") || strings.Contains(rest, "@"))
}

// canWrite is false of a session that stayed read only after its server or database
// was: as PostgreSQL reports it unasked, from version 14 on.
func canWrite(conn *pgx.Conn) bool {
	c := conn.PgConn()
	return c.ParameterStatus("default_transaction_read_only") != "on" && c.ParameterStatus("in_hot_standby") != "on"
}

// scanUTC makes timestamptz values scan in UTC; pgx would use the local zone.
func scanUTC(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name:  "timestamptz",
		OID:   pgtype.TimestamptzOID,
		Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}
