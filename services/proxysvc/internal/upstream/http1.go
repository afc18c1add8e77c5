package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/proliferate-ai/llm-proxy/kit/leash"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// http1 calls a host over HTTP/1.1 in the clear, in the goroutine of its caller.
// net/http's transport has two more for each connection, and hands every request and
// every answer from one to the other.
type http1 struct {
	pool pool
	host string // of the header: Host
	base string // path before each request's own
}

func newHTTP1(base *url.URL) *http1 {
	port := base.Port()
	if port == "" {
		port = "80"
	}
	return &http1{pool: pool{addr: net.JoinHostPort(base.Hostname(), port)}, host: base.Host, base: base.EscapedPath()}
}

// together is up to which size a body is copied behind its header, and written before
// the answer is waited for. A larger one is written while the answer may come: an
// upstream may refuse it before it has read it.
const together = 64 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// send sends a request and returns the answer's beginning. Nothing is sent twice.
func (h *http1) send(ctx context.Context, r proxy.UpstreamRequest, credential [2]string) (*proxy.UpstreamResponse, error) {
	buf := buffers.Get().(*[]byte)
	head, err := h.head((*buf)[:0], r, credential)
	if err != nil {
		return nil, err
	}
	var rest [][]byte
	if r.Body.Len() > together {
		rest = r.Body.Pieces() // the header goes with the beginning of the first
		first := min(len(rest[0]), together/2)
		head, rest[0] = append(head, rest[0][:first]...), rest[0][first:]
	} else {
		head = r.Body.AppendTo(head)
	}
	*buf = head
	c, err := h.pool.get(ctx)
	if err != nil {
		return nil, err
	}
	c.in.begin()
	a := &answer{ctx: ctx, conn: c, pool: &h.pool}
	a.cut.After(ctx, a)
	if rest != nil {
		a.writing = make(chan error, 1)
		r.Loan.Hold()
		go func() {
			_, err := c.Write(head)
			for _, piece := range rest {
				if err == nil {
					_, err = c.Write(piece)
				}
			}
			r.Loan.Release()
			buffers.Put(buf)
			a.writing <- err
		}()
	} else {
		_, err = c.Write(head)
		buffers.Put(buf)
	}
	// A host that does not take the request may have said why before.
	b, readErr := readAnswer(&c.in, &a.plain)
	if readErr != nil {
		return nil, a.fail(errors.Join(err, readErr))
	}
	c.in.unbounded()
	a.body, a.last = b.body, b.last || err != nil
	switch b.body = a; a.body {
	case http.NoBody:
		a.finish()
	case &a.plain.chunks:
		b.body = stream{a}
	}
	a.resp = b.response()
	return &a.resp, nil
}

// readAnswer reads the beginning of the answer, without those that only say that it
// will come.
func readAnswer(in *input, plain *plainBody) (beginning, error) {
	if b, ok := readPlain(in, plain); ok {
		return b, nil
	}
	for {
		resp, err := http.ReadResponse(in.byHTTP(), nil) //nolint:bodyclose // the caller closes it, as proxy.Upstream says
		switch {
		case err != nil:
			return beginning{}, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return beginning{}, errors.New("the upstream switches to a protocol that nobody asked for")
		case resp.StatusCode >= http.StatusOK:
			return beginningOf(resp), nil
		}
	}
}

// framing says whether a header tells where a request ends, which is only ours to say.
func framing(name string) bool {
	return is(name, "Host") || is(name, "Content-Length") || is(name, "Transfer-Encoding") || is(name, "Connection")
}

func is(name, known string) bool { return len(name) == len(known) && strings.EqualFold(name, known) }

// head appends the request line and the header.
func (h *http1) head(buf []byte, r proxy.UpstreamRequest, credential [2]string) ([]byte, error) {
	buf = append(append(append(buf, "POST "...), h.base...), r.Path...)
	if r.Query != "" {
		buf = append(append(buf, '?'), r.Query...)
	}
	if !plain(buf) {
		return nil, errors.New("the request's path or query has control characters")
	}
	buf = append(append(buf, " HTTP/1.1\r\nHost: "...), h.host...)
	buf = strconv.AppendInt(append(buf, "\r\nContent-Length: "...), int64(r.Body.Len()), 10)
	buf = append(append(append(append(buf, "\r\n"...), credential[0]...), ": "...), credential[1]...)
	for _, l := range r.Header {
		if framing(l.Name) || is(l.Name, credential[0]) {
			continue
		}
		if !plain(l.Name) || !plain(l.Value) {
			return nil, fmt.Errorf("the header %q has control characters", l.Name)
		}
		buf = append(append(append(append(buf, "\r\n"...), l.Name...), ": "...), l.Value...)
	}
	return append(buf, "\r\n\r\n"...), nil
}

// plain says that there is nothing that could end a line.
func plain[T string | []byte](text T) bool {
	for i := range len(text) {
		if b := text[i]; b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// answer is the body of an answer. Read to its end, it gives the connection back.
type answer struct {
	resp    proxy.UpstreamResponse // whose body it is
	ctx     context.Context        //nolint:containedctx // as in net/http: reading ends with the request
	conn    *conn
	pool    *pool
	body    io.ReadCloser
	plain   plainBody  // is body, of a plain answer
	cut     leash.Hook // stops it when ctx ends
	writing chan error // tells when the body was written; nil: it was
	last    bool       // the connection carries no other request
	end     error      // what whoever reads on is told; nil: it is not over
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	if a.end != nil {
		return 0, a.end
	}
	n, err := a.body.Read(p)
	return n, a.ended(err)
}

// ended ends the answer if reading it did.
func (a *answer) ended(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		a.finish()
		return err
	}
	return a.fail(err)
}

// stream is an answer in chunks.
type stream struct{ *answer }

var _ proxy.Pieces = stream{}

// Ready implements proxy.Pieces.
func (s stream) Ready() bool { return s.end == nil && s.plain.chunks.ready() }

// Ended implements proxy.Pieces.
func (s stream) Ended() bool { return s.end == nil && s.plain.chunks.ended() }

// Next implements proxy.Pieces.
func (s stream) Next() ([]byte, error) {
	if s.end != nil {
		return nil, s.end
	}
	p, err := s.plain.chunks.next()
	return p, s.ended(err)
}

// Close implements io.Closer.
func (a *answer) Close() error {
	if a.end == nil {
		a.drop(http.ErrBodyReadAfterClose) // the rest of the answer would be in the way
	}
	return nil
}

// Stop implements leash.Stopper: whoever reads or writes finds out.
func (a *answer) Stop() { a.conn.Close() } // nothing is lost

// finish ends an answer that was read to its end.
func (a *answer) finish() {
	written := a.writing == nil
	if !written {
		select {
		case err := <-a.writing:
			a.writing, written = nil, err == nil
		default: // the upstream answered before it had the whole body
		}
	}
	if !a.conn.in.end() || a.last || a.plain.chunks.odd || !written || !a.cut.Stop() {
		a.drop(io.EOF)
		return
	}
	a.end = io.EOF
	a.pool.put(a.conn)
}

// drop closes the connection. After it the request's body is nobody's.
func (a *answer) drop(end error) {
	a.end = end
	a.cut.Stop()
	a.conn.Close() // nothing is lost
	if a.writing != nil {
		<-a.writing //nolint:errcheck // it was cut off
	}
}

// fail ends an answer that broke, and says why.
func (a *answer) fail(err error) error {
	if a.ctx.Err() != nil {
		err = leash.Cause(a.ctx)
	}
	a.drop(err)
	return err
}
