package lean

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log" //nolint:depguard // http.Server takes no other
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// stand is a server, lean or net/http's alone, with one handler for everything.
type stand struct {
	t     testing.TB
	srv   *Server
	addr  string
	ended chan error
	log   *buffer
	// served counts the requests that came past net/http.
	served func() int
}

// buffer is where ErrorLog writes.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

const hotPath = "/v1/messages"

// start serves h on the hot path, and on every other. Without hot it is net/http
// alone.
func start(t testing.TB, hot bool, h http.HandlerFunc) *stand {
	t.Helper()
	return startWith(t, hot, h, func(*http.Server) {})
}

func startWith(t testing.TB, hot bool, h http.HandlerFunc, edit func(*http.Server)) *stand {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t, addr: l.Addr().String(), ended: make(chan error, 1), log: &buffer{}}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
		ErrorLog: stdlog.New(s.log, "", 0),
	}
	edit(srv)
	var mu sync.Mutex
	n := 0
	s.served = func() int { mu.Lock(); defer mu.Unlock(); return n }
	var routes map[string]http.Handler
	if hot {
		routes = map[string]http.Handler{hotPath: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			n++
			mu.Unlock()
			h(w, r)
		})}
	}
	s.srv = New(srv, routes)
	go func() { s.ended <- s.srv.Serve(l) }()
	t.Cleanup(func() {
		if err := s.srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-s.ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
	return s
}

// client is a raw connection. Whatever is not there within a minute is not coming.
type client struct {
	t testing.TB
	net.Conn
	br *bufio.Reader
}

func (s *stand) dial() *client {
	s.t.Helper()
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	return &client{s.t, c, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) half() {
	c.t.Helper()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads the next answer and gives its status, headers and body as text.
func (c *client) answer() (string, error) {
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	resp.Header.Del("Date")
	return fmt.Sprintf("%s %v length %d %v close %v\n%s", resp.Status, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Close, body), err
}

func (c *client) must() string {
	c.t.Helper()
	text, err := c.answer()
	if err != nil {
		c.t.Fatalf("an answer: %v", err)
	}
	return text
}

// gone waits for the end of the connection.
func (c *client) gone() {
	c.t.Helper()
	if b, err := c.br.ReadByte(); err == nil {
		c.t.Errorf("the connection went on: %q", b)
	} else if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		c.t.Error("the connection stays open")
	}
}

// post is a request for the hot path.
func post(body string, header ...string) string {
	return "POST " + hotPath + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(header, ""), "\r\n") +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// echo answers with what it was asked; x-do says what else.
func echo(w http.ResponseWriter, r *http.Request) {
	do := r.Header.Get("X-Do")
	if do == "early" {
		http.Error(w, "not read", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %v %d %v %v", r.Method, r.RequestURI, r.Host, r.Proto, r.ContentLength, r.TransferEncoding, err))
	for name, values := range r.Header {
		w.Header()["X-Got-"+name] = values
	}
	switch do {
	case "empty":
	case "nothing":
		w.WriteHeader(http.StatusNoContent)
		_, err := w.Write([]byte("x"))
		if !errors.Is(err, http.ErrBodyNotAllowed) {
			panic("a body after 204")
		}
	case "unmodified":
		w.Header().Set("Content-Type", "text/x")
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusNotModified)
	case "length":
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "hello") //nolint:errcheck // the client compares
		_, err := io.WriteString(w, "more")
		if !errors.Is(err, http.ErrContentLength) {
			panic("more than Content-Length")
		}
	case "short":
		w.Header().Set("Content-Length", "50")
		io.WriteString(w, "hello") //nolint:errcheck // the client compares
	case "bad length":
		w.Header().Set("Content-Length", "-3")
		io.WriteString(w, "hello") //nolint:errcheck // the client compares
	case "close":
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye") //nolint:errcheck // the client compares
	case "odd":
		w.Header()["X-Split"] = []string{"a\r\nX-B: c", " d "}
		w.Header()["Bad Name"] = []string{"x"}
		w.Header().Set("Date", "never")
		w.Header().Set("Content-Encoding", "odd")
		w.WriteHeader(599)
		w.WriteHeader(200)
		io.WriteString(w, "<html>") //nolint:errcheck // the client compares
	case "flush":
		http.NewResponseController(w).Flush()
		io.WriteString(w, "<html>") //nolint:errcheck // the client compares
		w.(http.Flusher).Flush()
		io.WriteString(w, "more") //nolint:errcheck // the client compares
	case "flush at once":
		for _, piece := range []string{"", "<html>", "", strings.Repeat("0123456789", 3000), "more"} {
			writeFlush(w, piece)
		}
	case "flush more than was said":
		w.Header().Set("Content-Length", "5")
		writeFlush(w, "12345")
		writeFlush(w, "6")
	case "large":
		for range 10 {
			w.Write(bytes.Repeat([]byte("0123456789"), 3000)) //nolint:errcheck // the client compares
		}
		w.Header().Set("X-Late", "too late")
	case "abort":
		io.WriteString(w, "half") //nolint:errcheck // the client compares
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "panic":
		panic("on purpose")
	default:
		w.Header().Set("X-Trailing", "  spaces  ")
		w.Write(body) //nolint:errcheck // the client compares
	}
}

// writeFlush writes and flushes at once where the server can.
func writeFlush(w http.ResponseWriter, piece string) {
	if both, ok := w.(interface{ WriteFlush(p []byte) error }); ok {
		both.WriteFlush([]byte(piece))
		return
	}
	io.WriteString(w, piece) //nolint:errcheck // the client compares
	http.NewResponseController(w).Flush()
}
