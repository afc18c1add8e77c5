package lean

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

// headSize is the largest head that is served here, and what is read of a
// connection at once: a request of the usual size is one read.
const headSize = 16 << 10

// buffers are the read buffers that no connection needs now.
var buffers = sync.Pool{New: func() any { return new([headSize]byte) }}

// maxBlanks is net/http's tolerance of old clients, which end a body with a line
// end.
const maxBlanks = 4

// phase is what a connection is at.
type phase int

const (
	fresh   phase = iota // nothing has come yet
	idle                 // between requests
	reading              // a head has begun
	busy                 // a handler runs, or its answer is sent
	gone                 // closed or handed over
)

// conn is a client's connection. Its goroutine runs serve; fields before mu are
// that goroutine's own.
type conn struct {
	srv    *Server
	nc     *sock.Conn
	raw    syscall.RawConn
	remote string
	born   int64 // tick

	onReadable func(fd uintptr) bool // readable
	buf        *[headSize]byte       // nil while it would be empty
	r, w       int                   // buf[r:w] has come and was not used
	readErr    error                 // of the last readable; io.EOF at the end
	served     bool                  // a request was
	blanks     int                   // characters of line ends that may come before the next

	mu        sync.Mutex
	phase     phase
	until     int64     // tick at which the watch closes the connection; 0: none
	answering *response // while a handler runs

	reads, writes deadline // that the handler set
}

func (c *conn) serve() {
	handedOver := false
	defer func() {
		c.srv.forget(c)
		if !handedOver {
			c.mu.Lock()
			c.close()
			c.mu.Unlock()
			c.release()
		}
	}()
	for {
		s := scan{}
		switch c.head(&s) {
		case theirs:
			handedOver = c.handOver()
			return
		case unsure:
			return
		case ours:
		}
		w := &response{c: c, length: -1}
		req, err := parse(w.ctx.Begin(context.Background()), c.buf[c.r:c.r+s.at])
		if err != nil || req.ContentLength != s.length {
			handedOver = c.handOver()
			return
		}
		c.r += s.at
		if !c.exchange(s.handler, w, req, s.length) {
			return
		}
		c.served, c.blanks = true, maxBlanks
	}
}

// head reads the head of the next request. Unsure means that the connection is
// at its end.
func (c *conn) head(s *scan) verdict {
	for {
		for c.blanks > 0 && c.r < c.w && (c.buf[c.r] == '\r' || c.buf[c.r] == '\n') {
			c.r++
			c.blanks--
		}
		if c.r < c.w && !c.scrap() {
			if !c.begin() {
				return unsure
			}
			v := s.more(c.buf[c.r:c.w], c.srv.hot)
			if limit := c.srv.http.MaxHeaderBytes; limit > 0 && s.at > limit {
				return theirs
			}
			if v != unsure {
				return v
			}
			if c.w-c.r == len(c.buf) {
				return theirs
			}
		}
		c.makeRoom()
		if err := c.raw.Read(c.onReadable); err != nil {
			return unsure
		}
		if c.readErr != nil {
			if c.readErr == io.EOF && c.r < c.w && !c.scrap() { //nolint:errorlint // it is ours, from readable
				return theirs // net/http knows what to say to half a head
			}
			return unsure
		}
	}
}

// scrap says whether what came after an answer is too little to be looked at, as
// in net/http.
func (c *conn) scrap() bool { return c.served && maxBlanks-c.blanks+c.w-c.r < 4 }

// readable reads what has come, and takes a buffer only then. False means that
// nothing has: it is called again when something may have.
func (c *conn) readable(fd uintptr) bool {
	if c.buf == nil {
		c.buf = buffers.Get().(*[headSize]byte)
	}
	n, again, err := sock.Read(fd, c.buf[c.w:])
	if again {
		if c.w == 0 {
			c.release()
		}
		return false
	}
	c.w += n
	if c.readErr = err; err == nil && n == 0 {
		c.readErr = io.EOF
	}
	return true
}

// makeRoom moves what is there to the buffer's beginning, and gives the buffer
// back if that is nothing.
func (c *conn) makeRoom() {
	if c.release(); c.r > 0 {
		c.w = copy(c.buf[:], c.buf[c.r:c.w])
		c.r = 0
	}
}

// release gives the buffer back if nothing is left in it.
func (c *conn) release() {
	if c.r != c.w {
		return
	}
	c.r, c.w = 0, 0
	if c.buf != nil {
		buffers.Put(c.buf)
		c.buf = nil
	}
}

// begin notes that a head has begun to arrive. False: it came too late.
func (c *conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.phase {
	case idle:
		c.until = c.srv.after(c.srv.header)
		c.phase = reading
	case fresh:
		c.phase = reading
	case gone:
		return false
	case reading, busy:
	}
	return true
}

// enter goes from one phase to the next. False: the connection is closed.
func (c *conn) enter(p phase, timeout int64, w *response) bool {
	until := c.srv.after(timeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == gone {
		return false
	}
	c.phase, c.until, c.answering = p, until, w
	return true
}

// close needs mu.
func (c *conn) close() {
	if c.phase != gone {
		c.phase = gone
		c.nc.Close()
	}
}

// handOver gives the connection, with every byte that was not answered, to
// net/http.
func (c *conn) handOver() bool {
	c.mu.Lock()
	if c.phase == gone {
		c.mu.Unlock()
		return false
	}
	c.phase = gone
	c.mu.Unlock()
	rest := bytes.Clone(c.buf[c.r:c.w])
	c.r = c.w
	c.release()
	c.srv.cold.give(&handed{Conn: c.nc.Conn, rest: rest})
	return true
}

// exchange serves one request, and says whether another may follow.
func (c *conn) exchange(h http.Handler, w *response, req *http.Request, length int64) bool {
	defer w.cancel()
	w.since.Store(c.srv.tick.Load())
	w.body.c, w.body.left = c, length
	req.RemoteAddr = c.remote
	req.Body = &w.body
	if length == 0 {
		req.Body = http.NoBody
		w.body.end()
	}
	if !c.enter(busy, 0, w) || !c.call(h, w, req) {
		return false
	}
	w.cancel()
	// What is left to send or to read is bounded as an idle connection is.
	if !c.enter(busy, c.srv.idle, nil) || !w.finish() || !c.noDeadlines() {
		return false
	}
	return c.enter(idle, c.srv.idle, nil)
}

// call runs the handler. False: it panicked, and the connection is of no more
// use; http.ErrAbortHandler is the quiet way to say so.
func (c *conn) call(h http.Handler, w *response, req *http.Request) (ok bool) {
	defer func() {
		if ok {
			return
		}
		w.abort()
		if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // as net/http has it
			stack := make([]byte, 64<<10)
			stack = stack[:runtime.Stack(stack, false)]
			c.srv.logf("http: panic serving %v: %v\n%s", c.remote, err, stack)
		}
	}()
	h.ServeHTTP(w, req)
	return true
}

// noDeadlines takes off what the handler set.
func (c *conn) noDeadlines() bool { return c.reads.clear() == nil && c.writes.clear() == nil }

// lingerTime is how long a client that still sends gets to read its answer, as
// in net/http: what is closed with bytes unread is reset, answer and all.
const lingerTime = 500 * time.Millisecond

func (c *conn) linger() {
	if closeWrite(c.nc.Conn) != nil || c.nc.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	io.Copy(io.Discard, onlyReader{c.nc}) //nolint:errcheck // it ends when time is up, or the client's side is closed
}

type onlyReader struct{ io.Reader }
