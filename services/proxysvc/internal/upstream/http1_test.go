package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// host is a server that answers each request as it likes, byte for byte. It returns
// its URL and how many connections it has had.
func host(t *testing.T, serve func(c net.Conn, in *bufio.Reader, nth int64)) (string, *atomic.Int64) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // immediate
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	connections := new(atomic.Int64)
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			nth := connections.Add(1)
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c), nth)
			}()
		}
	}()
	return "http://" + lis.Addr().String(), connections
}

// answering reads requests and answers each with the same text.
func answering(text string) func(net.Conn, *bufio.Reader, int64) {
	return func(c net.Conn, in *bufio.Reader, _ int64) {
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			if _, err := io.WriteString(c, text); err != nil || strings.Contains(text, "until the end") {
				return
			}
		}
	}
}

// exchange sends a request and reads its answer whole.
func exchange(t *testing.T, c *Client, url, body string) (status int, text string, err error) {
	t.Helper()
	resp, err := c.Send(t.Context(), request(url, proxy.Header{}, body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp.Status, string(got), err
}

// TestHowAnswersEnd has each kind of answer twice: what stays of the first on a
// connection would be in the second.
func TestHowAnswersEnd(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer, text string
		status             int
		connections        int64 // that two requests take
		fails              bool
	}{
		{"with a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, 1, false},
		{"in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "hello", 200, 1, false},
		{"in chunks with a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello", 200, 1, false},
		{"in chunks with a trailer that was not announced", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello", 200, 2, false},
		{"in chunks with more behind them", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "hello", 200, 2, false},
		{"in chunks that are none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n", "hello", 200, 2, true},
		{"in chunks, odd for another reason", "HTTP/1.1 200 OK\r\nPragma: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", 200, 1, false},
		{"without a body", "HTTP/1.1 204 No Content\r\n\r\n", "", 204, 1, false},
		{"of no length", "HTTP/1.1 529 Overloaded\r\nContent-Length: 0\r\n\r\n", "", 529, 1, false},
		{"after others that say that it comes", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, 1, false},
		{"with the connection", "HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end", 200, 2, false},
		{"with a connection that closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, 2, false},
		{"by an old server", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, 2, false},
		{"with more than it said", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", "hello", 200, 2, false},
		{"short of what it said", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nuntil the end", "until the end", 200, 2, true},
		{"in half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nuntil the end", "until the end", 200, 2, true},
		{"in another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "", 0, 2, true},
		{"in no HTTP at all", "SSH-2.0-OpenSSH\r\n", "", 0, 2, true},
		{"in a header without an end", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 2*maxHead) + "\r\nContent-Length: 0\r\n\r\n", "", 0, 2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, connections := host(t, answering(tt.answer))
			c := New()
			for range 2 {
				status, text, err := exchange(t, c, url, "{}")
				if status != tt.status || text != tt.text || (err != nil) != tt.fails {
					t.Errorf("%d %q, %v, want %d %q, an error: %t", status, text, err, tt.status, tt.text, tt.fails)
				}
			}
			if got := connections.Load(); got != tt.connections {
				t.Errorf("%d connections, want %d", got, tt.connections)
			}
		})
	}
}

// TestAConnectionThatWasClosedIsNotUsed closes each connection after an answer that
// says nothing of it.
func TestAConnectionThatWasClosedIsNotUsed(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	url, connections := host(t, func(c net.Conn, in *bufio.Reader, _ int64) {
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, r.Body)                                       //nolint:errcheck // it is only drained
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") //nolint:errcheck // the test reads it
		c.Close()
		closed <- struct{}{}
	})
	c := New()
	for range 3 {
		if status, _, err := exchange(t, c, url, "{}"); status != http.StatusOK || err != nil {
			t.Errorf("%d, %v", status, err)
		}
		<-closed
	}
	if got := connections.Load(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
}

// TestABodyThatIsRefusedBeforeItWasRead has a server that answers after the header,
// and reads no more: either keeping the connection or closing it.
func TestABodyThatIsRefusedBeforeItWasRead(t *testing.T) {
	t.Parallel()
	for _, closes := range []bool{false, true} {
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		url, connections := host(t, func(c net.Conn, in *bufio.Reader, nth int64) {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if nth > 1 {
				io.Copy(io.Discard, r.Body) //nolint:errcheck // it is only drained
			}
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig") //nolint:errcheck // the test reads it
			if nth == 1 && !closes {
				<-over
			}
		})
		c := New()
		status, text, err := exchange(t, c, url, strings.Repeat("x", 32<<20))
		if status != http.StatusRequestEntityTooLarge || text != "big" || err != nil {
			t.Errorf("closes %t: %d %q, %v", closes, status, text, err)
		}
		if status, _, err := exchange(t, c, url, "{}"); status != http.StatusRequestEntityTooLarge || err != nil {
			t.Errorf("closes %t: the next: %d, %v", closes, status, err)
		}
		if got := connections.Load(); got != 2 {
			t.Errorf("closes %t: %d connections, want 2", closes, got)
		}
	}
}

// clinging is a connection whose long writes end some time after it was closed.
type clinging struct {
	net.Conn
	once             sync.Once
	closed, returned chan struct{}
	t                *testing.T
}

func (c *clinging) Write(p []byte) (int, error) {
	if len(p) <= together {
		return c.Conn.Write(p)
	}
	<-c.closed
	select {
	case <-c.returned:
		c.t.Error("Send returned while the body was being written")
	case <-time.After(50 * time.Millisecond): // long enough for Send to return
	}
	return 0, net.ErrClosed
}

func (c *clinging) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestABodyIsNotReadAfterItsCall has a caller leave while its body is written: its
// buffer is used for another request then.
func TestABodyIsNotReadAfterItsCall(t *testing.T) {
	t.Parallel()
	url, _ := host(t, func(_ net.Conn, in *bufio.Reader, _ int64) {
		if _, err := http.ReadRequest(in); err == nil {
			<-t.Context().Done()
		}
	})
	c := New()
	h, err := c.host(url)
	if err != nil {
		t.Fatal(err)
	}
	own, err := h.pool.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slow := &clinging{Conn: own.Conn.Conn, closed: make(chan struct{}), returned: make(chan struct{}), t: t}
	own.Conn.Conn = slow
	h.pool.put(own)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the client has gone")
	go cancel(why)
	_, err = c.Send(ctx, request(url, proxy.Header{}, strings.Repeat("x", together+1)))
	close(slow.returned)
	if !errors.Is(err, why) {
		t.Errorf("Send = %v, want %v", err, why)
	}
}

// TestNothingSneaksIntoTheHeader sends values with line ends.
func TestNothingSneaksIntoTheHeader(t *testing.T) {
	t.Parallel()
	url, connections := host(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	bad := []proxy.UpstreamRequest{
		request(url, proxy.Header{"Anthropic-Beta": {"a\r\nX-Api-Key: mine"}}, "{}"),
		request(url, proxy.Header{"A\nB": {"c"}}, "{}"),
		request(url, proxy.Header{"A": {"b\x00"}}, "{}"),
		request(url, proxy.Header{}, "{}"),
	}
	bad[3].Query = "a HTTP/1.1\r\nX: y\r\n"
	for _, r := range bad {
		if _, err := New().Send(t.Context(), r); err == nil || strings.Contains(err.Error(), "mine") {
			t.Errorf("%q, %q: %v, want an error without what was sent", r.Query, r.Header, err)
		}
	}
	if got := connections.Load(); got != 0 {
		t.Errorf("%d connections, want none", got)
	}
}

// TestFramingIsOurs sends headers that would say where the request ends.
func TestFramingIsOurs(t *testing.T) {
	t.Parallel()
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer server.Close()
	resp, err := New().Send(t.Context(), request(server.URL, proxy.Header{
		"Content-Length": {"1"}, "transfer-encoding": {"chunked"}, "Host": {"elsewhere"}, "connection": {"close"}, "x-api-key": {"mine"},
	}, "{ }"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got.ContentLength != 3 || len(got.TransferEncoding) > 0 || got.Host != strings.TrimPrefix(server.URL, "http://") || got.Close || got.Header.Get("X-Api-Key") != "sk-ant-real" {
		t.Errorf("the server got %+v", got)
	}
}

// TestManyAtOnce has connections taken and given back by many.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Write(body) //nolint:errcheck // the test reads it
	}))
	t.Cleanup(server.Close)
	c := New()
	for n := range 16 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for range 50 {
				body := strings.Repeat(string(rune('a'+n)), 1+n*5000)
				if status, text, err := exchange(t, c, server.URL, body); status != http.StatusOK || text != body || err != nil {
					t.Fatalf("%d, %d bytes, %v, want %d", status, len(text), err, len(body))
				}
			}
		})
	}
}
