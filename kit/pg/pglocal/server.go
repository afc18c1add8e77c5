package pglocal

import (
	"bytes"
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	//go:embed leash.sh
	leashScript string
	//go:embed cluster.sh
	clusterScript string
)

// Server is a running PostgreSQL.
type Server struct {
	cluster *cluster
	port    int
	logFrom int64         // where this run begins in the log
	leash   *os.File      // closing it ends the server
	done    chan struct{} // closed when the server has ended
	err     error         // how it ended; read after done
}

// URL leads the superuser to the database llmproxy. It contains the password.
func (s *Server) URL() string {
	return databaseURL(s.port, s.cluster.password, user)
}

// Done is closed when the server has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} {
	return s.done
}

// Stop ends the server without waiting for its clients, and returns when it is
// gone; what is ephemeral is gone with it. If ctx ends first Stop returns its
// error, and the server goes on stopping. It may be called again.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.end(); err != nil {
		return fmt.Errorf("stop local postgresql: %w", err)
	}
	select {
	case <-s.done:
		s.cluster.log.Close() // nobody asks for its tail any more
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop local postgresql: %w", ctx.Err())
	}
}

// end lets go of the leash.
func (s *Server) end() error {
	if err := s.leash.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// launch starts the server on its leash and returns at once. It owns c from
// then on.
func launch(c *cluster, port int, o Options) (*Server, error) {
	end, err := c.log.Seek(0, 2)
	if err != nil {
		return nil, err
	}
	stdin, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	// The server outlives any context: its leash decides.
	cmd := c.acct.command(context.Background(), "/bin/sh", c.args(port, o)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, c.log, c.log
	// A group of its own: Ctrl-C in our terminal must not end the server before
	// those who use it.
	cmd.SysProcAttr.Setpgid = true
	if c.lock != nil {
		cmd.ExtraFiles = []*os.File{c.lock}
	}
	if err := cmd.Start(); err != nil {
		leash.Close()
		return nil, err
	}
	s := &Server{cluster: c, port: port, logFrom: end, leash: leash, done: make(chan struct{})}
	go func() { // Stop waits for it
		defer close(s.done)
		s.err = cmd.Wait()
		if c.lock != nil {
			c.lock.Close()
		}
	}()
	return s, nil
}

// args are those of sh.
func (c *cluster) args(port int, o Options) []string {
	signal, initflag := "INT", "" // fast shutdown
	if o.Ephemeral {
		signal, initflag = "QUIT", "--no-sync" // immediate shutdown
	}
	args := []string{
		"-c", leashScript, "leash", signal, c.remove,
		"/bin/sh", "-c", clusterScript, "cluster", c.bin.dir, c.data, c.pwfile, initflag,
	}
	for _, setting := range settings(port, o) {
		args = append(args, "-c", setting)
	}
	return args
}

func settings(port int, o Options) []string {
	connections := o.MaxConnections
	if connections == 0 {
		connections = 100
	}
	s := []string{
		"listen_addresses=" + loopback,
		"port=" + strconv.Itoa(port),
		"unix_socket_directories=",
		"max_connections=" + strconv.Itoa(connections),
		"timezone=UTC",
		"log_timezone=UTC",
		"logging_collector=off",
		"log_destination=stderr",
	}
	if o.Ephemeral {
		s = append(s, "fsync=off", "full_page_writes=off", "synchronous_commit=off",
			"wal_level=minimal", "max_wal_senders=0")
	}
	return s
}

// patience is how long a server may answer with an error that waiting does not
// explain; one that lost the race for its port takes that long to notice.
const patience = 5 * time.Second

// await returns when the server accepts connections and has our database.
func (s *Server) await(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var since time.Time // of the first unexplained error
	for {
		// The password proves both sides, so a success is never with a stranger.
		err := createDatabase(ctx, databaseURL(s.port, s.cluster.password, "postgres"))
		if err == nil {
			return nil
		}
		if starting(err) {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > patience {
			return fmt.Errorf("connect: %w", err)
		}
		select {
		case <-s.done:
			return s.died(ctx)
		case <-ctx.Done():
			return fmt.Errorf("wait for the server to start: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// starting reports whether err is what a server gives that is not ready yet.
func starting(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "57P03" // cannot_connect_now
	}
	return true // not listening
}

func createDatabase(ctx context.Context, url string) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	cfg.ConnectTimeout = 2 * time.Second
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var exists bool
	err = conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1)`, user).Scan(&exists)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, `create database `+user)
	return err
}

// died explains the end of a server that never was ready.
func (s *Server) died(ctx context.Context) error {
	if _, err := freePort(ctx, s.port); err != nil {
		return err
	}
	return fmt.Errorf("the server ended (%w), and its log ends with:\n%s", s.err, s.logTail())
}

// logTail returns the last lines that this run wrote. The file may be removed
// already, but it is still open.
func (s *Server) logTail() []byte {
	const lines, size = 15, 8 << 10
	end, err := s.cluster.log.Seek(0, 2)
	if err != nil {
		return nil
	}
	b := make([]byte, min(size, end-s.logFrom))
	n, _ := s.cluster.log.ReadAt(b, end-int64(len(b))) // what there is, is said
	all := bytes.Split(bytes.TrimSpace(b[:n]), []byte("\n"))
	return bytes.Join(all[max(0, len(all)-lines):], []byte("\n"))
}
