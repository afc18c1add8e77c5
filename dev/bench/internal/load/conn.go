// Package load sends requests over plain HTTP/1.1 and measures the answers. It
// is cheap enough to share a machine with what it measures: no net/http, one
// goroutine a connection, nothing allocated by a request.
//
// Latencies count from the instant at which a request was due, not from when a
// connection was free for it, so that a proxy which stalls cannot hide the
// requests that it held up (no coordinated omission).
package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"time"
)

// Template is what many requests share.
type Template struct {
	// Before and After are the head around the key, After with the empty line.
	Before, After, Body []byte
	Stream              bool // the answer must be a stream that ends with message_stop
	// Leave makes clients drop their connections: a stream's upon the delta
	// LeaveAfter, another's as soon as it is asked for.
	Leave      bool
	LeaveAfter int
}

// Request is one request.
type Request struct {
	*Template
	Key string
}

// answer is what was seen of one answer. All times are of the same clock.
type answer struct {
	first  time.Time       // first byte
	think  time.Duration   // what of it the upstream took, of a stream
	end    time.Time       // last byte
	last   time.Duration   // from the upstream's last event to the last byte
	lags   []time.Duration // of deltas, from the upstream to here
	deltas int
	left   bool
}

// conn is a connection that is opened when it is needed.
type conn struct {
	addr string
	c    net.Conn
	in   *bufio.Reader
	line *bufio.Reader // of a stream's body
	each func()        // is called for each delta
	buf  []byte
	out  net.Buffers
	lags []time.Duration
}

var errStatus = errors.New("not 200")

// do sends one request and reads its answer whole. After an error the next
// request gets a new connection.
func (c *conn) do(r *Request) (answer, error) {
	if c.c == nil {
		var err error
		if c.c, err = net.DialTimeout("tcp", c.addr, 10*time.Second); err != nil {
			return answer{}, err
		}
		c.in = bufio.NewReaderSize(c.c, 16<<10)
	}
	a, keep, err := c.exchange(r)
	if err != nil || !keep || a.left {
		c.close()
	}
	return a, err
}

func (c *conn) close() {
	if c.c != nil {
		c.c.Close()
		c.c = nil
	}
}

func (c *conn) exchange(r *Request) (a answer, keep bool, err error) {
	_ = c.c.SetDeadline(time.Now().Add(time.Minute)) // a TCP connection always can
	if err := c.send(r); err != nil {
		return a, false, fmt.Errorf("send: %w", err)
	}
	if r.Leave && !r.Stream {
		a.left = true
		return a, false, nil
	}
	if _, err := c.in.Peek(1); err != nil {
		return a, false, fmt.Errorf("await the answer: %w", err)
	}
	a.first = time.Now()
	h, err := c.readHead()
	if err != nil {
		return a, false, err
	}
	body := h.body(c.in)
	switch {
	case h.status != 200:
		text, _ := io.ReadAll(io.LimitReader(body, 300)) // whatever there is
		return a, false, fmt.Errorf("%w: %d %s", errStatus, h.status, text)
	case r.Stream:
		err = c.readStream(body, r, &a)
	default:
		err = readMessage(body)
	}
	if err != nil || a.left {
		return a, false, err
	}
	if h.chunked {
		if _, err := c.in.ReadSlice('\n'); err != nil { // the line after the last chunk
			return a, false, err
		}
	}
	if a.end = time.Now(); a.last != 0 {
		a.last += time.Duration(a.end.UnixNano())
	}
	return a, h.keep, nil
}

// small is up to where a body is copied behind its head rather than sent as a
// piece of its own.
const small = 64 << 10

func (c *conn) send(r *Request) error {
	c.buf = append(append(append(c.buf[:0], r.Before...), r.Key...), r.After...)
	if len(r.Body) <= small {
		c.buf = append(c.buf, r.Body...)
		_, err := c.c.Write(c.buf)
		return err
	}
	c.out = append(c.out[:0], c.buf, r.Body)
	parts := c.out
	_, err := parts.WriteTo(c.c)
	return err
}

type head struct {
	status  int
	length  int64
	chunked bool
	keep    bool
}

func (h head) body(in *bufio.Reader) io.Reader {
	switch {
	case h.chunked:
		return httputil.NewChunkedReader(in)
	case h.length >= 0:
		return io.LimitReader(in, h.length)
	default:
		return in
	}
}

func (c *conn) readHead() (head, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return head{}, fmt.Errorf("read the status: %w", err)
	}
	h := head{length: -1, keep: true}
	if len(line) < 12 {
		return h, fmt.Errorf("status line %q", line)
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, fmt.Errorf("status line %q", line)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return h, fmt.Errorf("read the header: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			h.keep = h.keep && (h.chunked || h.length >= 0)
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return h, fmt.Errorf("content-length %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.chunked = true
		case bytes.EqualFold(name, []byte("Connection")):
			h.keep = !bytes.EqualFold(value, []byte("close"))
		}
	}
}

// readMessage reads a whole answer, which is a message to its end.
func readMessage(body io.Reader) error {
	var buf [4 << 10]byte
	size, last := 0, byte(0)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			size, last = size+n, buf[n-1]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
	}
	if last != '}' && last != '\n' || size < 100 {
		return fmt.Errorf("an answer of %d bytes broke off", size)
	}
	return nil
}

var (
	sentAt  = []byte(`"sent_at":`)
	thought = []byte(`"thought_ns":`)
	begin   = []byte(`data: {"type":"message_start"`)
	delta   = []byte(`data: {"type":"content_block_delta"`)
	stop    = []byte(`data: {"type":"message_stop"`)
)

// readStream reads a stream and notes how late its events are.
func (c *conn) readStream(body io.Reader, r *Request, a *answer) error {
	if c.line == nil {
		c.line = bufio.NewReaderSize(body, 8<<10)
	} else {
		c.line.Reset(body)
	}
	c.lags = c.lags[:0]
	whole := false
	for {
		line, err := c.line.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		at, stamped := number(line, sentAt)
		switch {
		case bytes.HasPrefix(line, begin):
			think, _ := number(line, thought)
			a.think = time.Duration(think)
		case bytes.HasPrefix(line, delta):
			a.deltas++
			c.each()
			if stamped {
				c.lags = append(c.lags, time.Duration(time.Now().UnixNano()-at))
			}
			if r.Leave && a.deltas == r.LeaveAfter {
				a.left = true
				return nil
			}
		case bytes.HasPrefix(line, stop):
			if whole = true; stamped {
				a.last = -time.Duration(at)
			}
		}
	}
	a.lags = c.lags
	if !whole {
		return errors.New("a stream broke off")
	}
	return nil
}

// number finds a number that the upstream wrote into an event.
func number(line, name []byte) (int64, bool) {
	_, rest, ok := bytes.Cut(line, name)
	if !ok {
		return 0, false
	}
	n := int64(0)
	for _, digit := range rest {
		if digit < '0' || digit > '9' {
			break
		}
		n = n*10 + int64(digit-'0')
	}
	return n, true
}
