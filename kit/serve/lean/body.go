package lean

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
)

// maxDrain is how much of a body that its handler left is read, so that the
// connection can go on; with more it is closed. As in net/http.
const maxDrain = 256 << 10

// smallRead is below what the buffer stands between the handler and the
// connection.
const smallRead = 4 << 10

// body is a request's body: a known number of bytes.
type body struct {
	c     *conn
	whole atomic.Bool // all of it was read

	mu     sync.Mutex
	left   int64
	closed bool
	err    error // what reading ended with
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.read(p)
}

// Close implements io.Closer. What was not read is drained after the answer.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// read needs mu.
func (b *body) read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	c := b.c
	if c.r == c.w && len(p) < smallRead && len(p) > 0 {
		c.r, c.w = 0, 0
		if c.buf == nil {
			c.buf = buffers.Get().(*[headSize]byte)
		}
		n, err := c.readBody(c.buf[:])
		c.w = n
		if n == 0 {
			return 0, b.fail(err)
		}
	}
	if c.r < c.w {
		n := copy(p, c.buf[c.r:c.w])
		c.r += n
		return n, b.took(n)
	}
	n, err := c.readBody(p)
	if end := b.took(n); end != nil || err == nil {
		return n, end
	}
	return n, b.fail(err)
}

// took counts n bytes; the last one brings io.EOF with it.
func (b *body) took(n int) error {
	if b.left -= int64(n); b.left == 0 {
		b.err = io.EOF
		b.end()
	}
	return b.err
}

// fail keeps an error, unless it is the deadline, which may be moved.
func (b *body) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		b.err = err
	}
	return err
}

// end notes that the body was read: from now on the buffer is of no use, and what
// the connection brings is the next request or its end.
func (b *body) end() {
	b.c.release()
	b.whole.Store(true)
}

// drain reads what the handler left, if that is little. False: the client still
// sends, and must be told that the connection ends.
func (b *body) drain() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whole.Load() {
		return true
	}
	if b.left >= maxDrain {
		return false
	}
	var scrap [smallRead]byte
	for {
		if _, err := b.read(scrap[:]); err != nil {
			return b.whole.Load() || errors.Is(err, io.ErrUnexpectedEOF)
		}
	}
}

// shut ends the body with its request. It says whether the client still sends.
func (b *body) shut() (unread bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.left > 0 && b.err == nil
}

// readBody reads from the connection within the handler's deadline.
func (c *conn) readBody(p []byte) (int, error) {
	if err := c.reads.begin(); err != nil {
		return 0, err
	}
	n, err := c.nc.Read(p)
	c.reads.end()
	return n, err
}
