// Package lean serves a few busy POST routes over HTTP/1.1 at a lower price than
// net/http, and hands every other connection to net/http on the same listener.
//
// A connection has one goroutine, and buffers only while bytes are in them: an
// idle connection and an open stream hold none. An answer that fits in a buffer
// is one write, each flush of a stream is one. Whether a client has left is asked
// by one goroutine for all.
//
// It refuses to judge: a head that is unusual in any way (see scan) goes to
// net/http as it came, which answers it or turns it down as ever. Informational
// answers, trailers and hijacking are not there for the routes it serves.
package lean

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

// Server is an http.Server with hot routes. Serve once; then Shutdown or Close.
type Server struct {
	http *http.Server
	hot  map[string]http.Handler

	idle, header int64 // http.Server's timeouts in ticks; 0: none
	draining     atomic.Bool
	tick         atomic.Int64 // how often the watch has looked
	date         atomic.Pointer[date]

	mu       sync.Mutex
	conns    map[*conn]struct{}
	listener net.Listener // nil before Serve
	cold     *cold        // where net/http gets its connections
	running  sync.WaitGroup
	stop     chan struct{} // ends the watch
	watched  chan struct{} // closed when it has ended
	stopOnce sync.Once
}

// New makes a server out of net/http's: its timeouts, ErrorLog and
// MaxHeaderBytes hold for the hot routes too (ReadTimeout and WriteTimeout do
// not), and its Handler serves the rest. hot has the handlers of POST by path,
// which must match to the byte, up to the query. Without any, and on systems
// other than Linux, net/http serves everything.
func New(srv *http.Server, hot map[string]http.Handler) *Server {
	return &Server{
		http: srv, hot: hot, conns: map[*conn]struct{}{},
		idle: ticks(srv.IdleTimeout), header: ticks(srv.ReadHeaderTimeout),
		stop: make(chan struct{}), watched: make(chan struct{}),
	}
}

// Serve is http.Server's: it returns when the server is shut down or its
// listener fails.
func (s *Server) Serve(l net.Listener) error {
	if !supported || len(s.hot) == 0 {
		return s.http.Serve(l)
	}
	c := &cold{addr: l.Addr(), conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		return errors.Join(http.ErrServerClosed, l.Close())
	}
	s.listener, s.cold = l, c
	s.running.Go(func() { s.accept(l, c) })
	go s.watch()
	s.mu.Unlock()
	err := s.http.Serve(c)
	l.Close() // it may be closed already
	return err
}

// Shutdown is http.Server's: no new connections, idle ones are closed, what runs
// may finish, and its connection is closed then. What still runs when ctx ends is
// cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	if !s.drain() {
		return s.http.Shutdown(ctx)
	}
	defer s.endWatch()
	// net/http goes on accepting meanwhile: a connection may still be handed over.
	s.http.SetKeepAlivesEnabled(false)
	s.look()
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		s.cut()
	}
	return errors.Join(s.http.Shutdown(ctx), ctx.Err())
}

// Close is http.Server's: it cuts everything off.
func (s *Server) Close() error {
	if s.drain() {
		s.cut()
		s.endWatch()
	}
	return s.http.Close()
}

// drain stops accepting, and says whether anything is served here.
func (s *Server) drain() bool {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return false
	}
	s.listener.Close() // it may be closed already
	return true
}

// cut closes every connection and cancels what runs on it.
func (s *Server) cut() {
	for _, c := range s.all(nil) {
		c.mu.Lock()
		w := c.answering
		c.close()
		c.mu.Unlock()
		if w != nil {
			w.cancel()
		}
	}
}

func (s *Server) accept(l net.Listener, c *cold) {
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.draining.Load() {
				return // and net/http waits for what may be handed over
			}
			select {
			case c.errs <- err: // net/http logs it and asks again later, or gives up
				continue
			case <-c.closed:
				return
			}
		}
		if _, ok := nc.(syscall.Conn); !ok {
			c.give(nc)
			continue
		}
		sc, err := sock.New(nc)
		if err != nil {
			nc.Close()
			continue
		}
		s.start(sc)
	}
}

func (s *Server) start(nc *sock.Conn) {
	c := &conn{srv: s, nc: nc, raw: nc.Raw(), remote: nc.RemoteAddr().String(), born: s.tick.Load()}
	c.onReadable = c.readable
	c.reads.apply, c.writes.apply = nc.SetReadDeadline, nc.SetWriteDeadline
	c.until = s.after(s.header)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.running.Go(c.serve)
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

func (s *Server) all(into []*conn) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		into = append(into, c)
	}
	return into
}

func (s *Server) logf(format string, args ...any) {
	if s.http.ErrorLog != nil {
		s.http.ErrorLog.Printf(format, args...)
	}
}

// date is what the Date header says within a second.
type date struct {
	second int64
	text   string
}

func (s *Server) now() string {
	now := time.Now()
	d := s.date.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		s.date.Store(d)
	}
	return d.text
}

// cold is the listener that net/http serves.
type cold struct {
	addr   net.Addr
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (c *cold) Accept() (net.Conn, error) {
	select {
	case nc := <-c.conns:
		return nc, nil
	case err := <-c.errs:
		return nil, err
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (c *cold) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// Addr implements net.Listener.
func (c *cold) Addr() net.Addr { return c.addr }

func (c *cold) give(nc net.Conn) {
	select {
	case c.conns <- nc:
	case <-c.closed:
		nc.Close()
	}
}

// handed is a connection with what was read of it before.
type handed struct {
	net.Conn
	rest []byte
}

// Read gives back what was read, then reads on.
func (h *handed) Read(p []byte) (int, error) {
	if len(h.rest) == 0 {
		return h.Conn.Read(p)
	}
	n := copy(p, h.rest)
	if h.rest = h.rest[n:]; len(h.rest) == 0 {
		h.rest = nil
	}
	return n, nil
}

// CloseWrite is what net/http asks for before it closes a connection whose
// client still sends.
func (h *handed) CloseWrite() error { return closeWrite(h.Conn) }

func closeWrite(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
