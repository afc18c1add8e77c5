// Package sock reads and writes TCP connections at a lower price than net.
//
// A system call on a socket that never waits is over in some microseconds. Go tells
// its scheduler before and after each all the same, and the first one after an idle
// moment also wakes the runtime's monitor, a thread that then looks after the program
// every 20 µs until it is idle again: for a proxy that gets one event at a time that is
// a tenth of its CPU. Here the scheduler learns of a connection only when it must wait
// for one. The monitor, which preempts goroutines that run for long, then wakes with the
// next timer that is due. Deadlines, Close and errors are net's. On systems other than
// Linux on amd64 and arm64, and under the race detector, it is as net does it.
package sock

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// most is what is written at once: copying it must not keep the processor from other
// goroutines for long. A quarter of a millisecond it takes; a megabyte in writes of 64 KB
// cost a request half as much again (docs/performance.md).
const most = 1 << 20

// Conn is a net.Conn. One goroutine at a time may read and one write.
type Conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out half
}

// half is a read or a write that runs.
type half struct {
	try func(fd uintptr) bool
	p   []byte
	buf Buffer // takes the place of p
	n   int
	err error
}

// Buffer is what Fill reads into: memory that a connection need not have while it waits.
type Buffer interface {
	// Take returns where to read to. It is not empty.
	Take() []byte
	// Leave says that nothing has come: who waits asks again.
	Leave()
}

// New makes a Conn. It fails for a connection that is no socket.
func New(nc net.Conn) (*Conn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.New("the connection is no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: nc, raw: raw}
	c.in.try, c.out.try = c.tryRead, c.tryWrite
	return c, nil
}

// Raw is the socket.
func (c *Conn) Raw() syscall.RawConn { return c.raw }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.p, c.in.n, c.in.err = p, 0, nil
	return c.read()
}

// Fill is Read into a buffer that is there only while something has come.
func (c *Conn) Fill(buf Buffer) (int, error) {
	c.in.buf, c.in.n, c.in.err = buf, 0, nil
	return c.read()
}

func (c *Conn) read() (int, error) {
	err := c.raw.Read(c.in.try)
	c.in.p, c.in.buf = nil, nil
	if err == nil {
		err = c.failed("read", c.in.err)
	}
	return c.in.n, err
}

// tryRead reads what has come. False: nothing has.
func (c *Conn) tryRead(fd uintptr) bool {
	p := c.in.p
	if c.in.buf != nil {
		p = c.in.buf.Take()
	}
	n, again, err := Read(fd, p)
	if again {
		if c.in.buf != nil {
			c.in.buf.Leave()
		}
		return false
	}
	if c.in.n, c.in.err = n, err; n == 0 && err == nil {
		c.in.err = io.EOF
	}
	return true
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.out.p, c.out.n, c.out.err = p, 0, nil
	err := c.raw.Write(c.out.try)
	c.out.p = nil
	if err == nil {
		err = c.failed("write", c.out.err)
	}
	return c.out.n, err
}

// failed makes net's error of what a system call says.
func (c *Conn) failed(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // as io.Reader says
		return err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// tryWrite writes what can be. False: the other side must take something first.
func (c *Conn) tryWrite(fd uintptr) bool {
	for c.out.n < len(c.out.p) {
		n, again, err := write(fd, c.out.p[c.out.n:min(len(c.out.p), c.out.n+most)])
		if again {
			return false
		}
		if c.out.n, c.out.err = c.out.n+n, err; err != nil {
			return true
		}
	}
	return true
}
