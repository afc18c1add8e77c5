// Package pglocal runs a PostgreSQL server on this machine, for trying the
// suite out and for tests. It uses the programs that are installed, installs
// them where that is allowed, and downloads them otherwise.
//
// The server listens on 127.0.0.1 only, and it is on a leash: it ends with the
// process that started it, however that one ends. It is not meant to be shared,
// nor to be run in production. Unix only.
package pglocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
)

// Options say what server to run.
type Options struct {
	// Dir is where the server lives: its data in Dir/postgres (a link to a place
	// under /var/lib/llmproxy where PostgreSQL's user may not enter Dir), its
	// superuser's password in Dir/password, its log in Dir/postgres.log. It is
	// created if absent, and the next Start finds the data again.
	//
	// If the server is ephemeral, Dir is where its temporary directory is made, or
	// /tmp if PostgreSQL's user may not write in Dir. Empty: the system's directory
	// for temporary files, and the server is ephemeral.
	Dir string
	// Ephemeral trades safety for speed: nothing is synced to disk, and all of
	// it is removed when the server ends.
	Ephemeral bool
	// Log receives a line for each step that takes long. Nil: none.
	Log io.Writer
	// Port to listen on. Zero: any free one.
	Port int
	// MaxConnections the server admits. Zero: 100.
	MaxConnections int
}

// Errors of Start that a caller may want to tell apart.
var (
	// ErrInUse: another process runs the server of that directory.
	ErrInUse = errors.New("directory is in use")
	// ErrPort: something else listens on that port.
	ErrPort = errors.New("port is in use")
	// ErrVersion: the data was written by a PostgreSQL that is not here.
	ErrVersion = errors.New("data of another PostgreSQL version")
)

// user names the superuser and the database that URL leads to.
const user = "llmproxy"

// portAttempts bounds the retries when a port that was free is lost before the
// server binds it.
const portAttempts = 5

// Start returns a server that accepts connections. It runs until Stop, or until
// this process ends. Cancelling ctx aborts Start, not the running server. Start
// takes as long as it must, to install software or to recover after a crash:
// bound it by ctx.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Ephemeral = o.Ephemeral || o.Dir == ""
	for attempt := 1; ; attempt++ {
		s, err := start(ctx, o)
		if err == nil {
			return s, nil
		}
		if o.Port != 0 || attempt == portAttempts || !errors.Is(err, ErrPort) {
			return nil, fmt.Errorf("start local postgresql: %w", err)
		}
	}
}

func start(ctx context.Context, o Options) (*Server, error) {
	c, err := openCluster(ctx, o)
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx, o.Port)
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	s, err := launch(c, port, o)
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := s.await(ctx); err != nil {
		// The caller's time may be used up, yet nothing shall be left behind.
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// freePort returns port if nothing listens on it, and for zero any such port.
func freePort(ctx context.Context, port int) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrPort, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

const loopback = "127.0.0.1"

func databaseURL(port int, password, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     net.JoinHostPort(loopback, strconv.Itoa(port)),
		Path:     database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}
