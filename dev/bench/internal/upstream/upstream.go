// Package upstream is a fast stand-in for Anthropic's Messages API: it answers
// POST /v1/messages with JSON, or with a stream where the body asks for one. It
// reads nothing of a request but its length and whether it wants a stream, keeps
// nothing but counts, and writes the instant at which it sent an event into the
// event, so that whoever receives it knows how late it is.
//
// For tests of speed only: sim/anthropic is the faithful one.
package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Pace is how a stream is sent.
type Pace struct {
	First  time.Duration // until its first byte
	Gap    time.Duration // between two deltas; 0: all of it at once
	Deltas int
}

// Counts are what the upstream has seen since it started.
type Counts struct {
	Begun, Ended int64 // requests for messages, and answers that were sent whole
	LastByteAt   int64 // Unix nanoseconds
}

// Server answers on the connections that Serve accepts.
type Server struct {
	pace         atomic.Pointer[Pace]
	begun, ended atomic.Int64
	lastByte     atomic.Int64
}

// New makes a server whose streams come at once.
func New() *Server {
	s := &Server{}
	s.pace.Store(&Pace{Deltas: 20})
	return s
}

// SetPace sets how the streams are sent that begin from now on.
func (s *Server) SetPace(p Pace) { s.pace.Store(&p) }

// Serve answers until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go s.serve(conn) // it ends with its connection
	}
}

func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	c := &client{server: s, conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	for c.answer() == nil {
	}
}

// client is one connection.
type client struct {
	server *Server
	conn   net.Conn
	in     *bufio.Reader
	out    []byte
}

// head is what is read of a request.
type head struct {
	method, path string
	length       int // of the body; -1: chunked
}

// answer reads one request and answers it.
func (c *client) answer() error {
	h, err := c.readHead()
	if err != nil {
		return err
	}
	stream, err := c.skipBody(h.length)
	if err != nil {
		return err
	}
	path, query, _ := strings.Cut(h.path, "?")
	switch {
	case h.method == "POST" && strings.HasSuffix(path, "/messages"):
		return c.message(stream)
	case path == "/bench/pace":
		return c.setPace(query)
	case path == "/bench/counts":
		return c.counts()
	}
	_, err = io.WriteString(c.conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	return err
}

func (c *client) readHead() (head, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return head{}, err
	}
	method, rest, _ := bytes.Cut(line, []byte(" "))
	path, _, _ := bytes.Cut(rest, []byte(" "))
	h := head{method: string(method), path: string(path)}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return head{}, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 {
				return head{}, errors.New("wrong content-length")
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.length = -1
		}
	}
}

// wantsStream is looked for where a body begins and ends.
var wantsStream = [][]byte{[]byte(`"stream":true`), []byte(`"stream": true`)}

// skipBody reads over the body and says whether it asks for a stream.
func (c *client) skipBody(length int) (stream bool, err error) {
	if length >= 0 {
		return c.skip(length)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		size, err := strconv.ParseUint(string(bytes.TrimRight(line, "\r\n")), 16, 31)
		if err != nil {
			return false, fmt.Errorf("read a chunk: %w", err)
		}
		found, err := c.skip(int(size))
		if err != nil {
			return false, err
		}
		stream = stream || found
		if _, err := c.in.Discard(2); err != nil || size == 0 {
			return stream, err
		}
	}
}

// skip reads over n bytes. Whether they ask for a stream is looked for at both
// ends: a proxy that writes bodies anew may put it last.
func (c *client) skip(n int) (stream bool, err error) {
	const end = 1 << 10
	for _, size := range []int{min(n, end), max(0, n-2*end), min(max(0, n-end), end)} {
		part, err := c.in.Peek(min(size, end))
		if err != nil {
			return false, err
		}
		for _, want := range wantsStream {
			stream = stream || bytes.Contains(part, want)
		}
		if _, err := c.in.Discard(size); err != nil {
			return false, err
		}
	}
	return stream, nil
}

// setPace takes /bench/pace?FIRST,GAP,DELTAS.
func (c *client) setPace(query string) error {
	f := strings.Split(query, ",")
	if len(f) != 3 {
		return c.text("400 Bad Request", "")
	}
	var p Pace
	var errs [3]error
	p.First, errs[0] = time.ParseDuration(f[0])
	p.Gap, errs[1] = time.ParseDuration(f[1])
	p.Deltas, errs[2] = strconv.Atoi(f[2])
	if errors.Join(errs[:]...) != nil {
		return c.text("400 Bad Request", "")
	}
	c.server.SetPace(p)
	return c.text("200 OK", "")
}

func (c *client) counts() error {
	s := c.server
	return c.text("200 OK", fmt.Sprintf(`{"Begun":%d,"Ended":%d,"LastByteAt":%d}`, s.begun.Load(), s.ended.Load(), s.lastByte.Load()))
}

func (c *client) text(status, body string) error {
	_, err := fmt.Fprintf(c.conn, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	return err
}
