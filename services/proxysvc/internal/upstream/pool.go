package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

const (
	maxIdle     = 1024             // connections of a host that wait for the next request
	idleTimeout = 90 * time.Second // after which they are closed
	dialTimeout = 10 * time.Second
	maxHead     = 1 << 20 // bytes of an answer's status line and header
)

// conn is an HTTP/1.1 connection to an upstream.
type conn struct {
	*sock.Conn
	in        input
	idleSince time.Time
	quiet     bool // of the last look
	look      func(fd uintptr) bool
}

// fresh says whether a connection that waited can carry another request: its other
// end has neither closed it nor said anything.
func (c *conn) fresh() bool {
	c.quiet = false
	err := c.Raw().Read(c.look)
	return err == nil && c.quiet
}

// peek is the look at a connection: there must be nothing to read yet.
func (c *conn) peek(fd uintptr) bool {
	var one [1]byte
	_, c.quiet, _ = sock.Peek(fd, one[:]) // an error is no quiet
	return true
}

// pool has the connections to one host that wait for a request, those that have
// waited longest first.
type pool struct {
	addr string // host:port

	mu    sync.Mutex
	idle  []*conn
	sweep *time.Timer // closes those that have waited too long; nil: none waits
}

// get returns a connection that waited, or a new one.
func (p *pool) get(ctx context.Context) (*conn, error) {
	for {
		c := p.pop()
		if c == nil {
			return p.dial(ctx)
		}
		if c.fresh() {
			return c, nil
		}
		c.Close() // its other end has
	}
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	c := p.idle[n]
	p.idle[n] = nil
	p.idle = p.idle[:n]
	return c
}

func (p *pool) dial(ctx context.Context) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	sc, err := sock.New(nc)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	c := &conn{Conn: sc, in: input{from: sc}}
	c.look = c.peek
	return c, nil
}

// put gives a connection back whose answer was read to its end.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) >= maxIdle {
		c.Close() // there are enough
		return
	}
	c.idleSince = time.Now()
	p.idle = append(p.idle, c)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(idleTimeout, p.clean)
	}
}

// clean closes what has waited too long.
func (p *pool) clean() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].idleSince) >= idleTimeout {
		p.idle[n].Close() // nothing is lost
		n++
	}
	rest := copy(p.idle, p.idle[n:])
	clear(p.idle[rest:])
	p.idle = p.idle[:rest]
	if rest == 0 {
		p.sweep = nil
		return
	}
	p.sweep.Reset(idleTimeout - time.Since(p.idle[0].idleSince))
}
