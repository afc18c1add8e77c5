package lean

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
)

func TestEachFlushIsThereBeforeTheNext(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	s := start(t, true, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for piece := range next {
			io.WriteString(w, piece) //nolint:errcheck // Flush says so
			if err := rc.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
		}
	})
	c := s.dial()
	c.send(post("x"))
	next <- "" // the head alone
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for n := range 5 {
		piece := strings.Repeat("x", 1<<(4*n))
		next <- piece
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != piece {
			t.Fatalf("piece %d: %d bytes, %v", n, len(got), err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

func TestAFlushIsOneWrite(t *testing.T) {
	t.Parallel()
	wrote := &writes{}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(&http.Server{}, map[string]http.Handler{hotPath: http.HandlerFunc(echo)})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(counted{l, wrote}) }()
	t.Cleanup(func() {
		noError(t, s.Close())
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve = %v", err)
		}
	})
	c := (&stand{t: t, addr: l.Addr().String()}).dial()
	c.send(post("hello"))
	c.must()
	c.send(post("hello", "X-Do: flush"))
	c.must()
	if got := wrote.n.Load(); got != 1+3 {
		t.Errorf("an answer and one of head, piece and rest are %d writes", got)
	}
	c.send(post("hello", "X-Do: flush more than was said"))
	c.must()
	if got := wrote.n.Load(); got != 1+3+1 {
		t.Errorf("a piece that is written and flushed at once is %d writes", got-4)
	}
}

func TestAClientThatLeavesCancels(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*client){
		"closes":         func(c *client) { c.Close() },
		"closes halfway": func(c *client) { c.half() },
		"resets":         func(c *client) { c.Conn.(*net.TCPConn).SetLinger(0); c.Close() }, //nolint:errcheck // Close is what counts
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			running, ended := make(chan struct{}), make(chan error, 1)
			s := start(t, true, func(_ http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) //nolint:errcheck // five bytes
				close(running)
				<-r.Context().Done()
				ended <- r.Context().Err()
			})
			c := s.dial()
			c.send(post("hello"))
			<-running
			leave(c)
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the context ended with %v", err)
			}
		})
	}
}

// TestAStreamThatFlowsIsNotLookedAt: its client is missed by the next write, or when
// it pauses.
func TestAStreamThatFlowsIsNotLookedAt(t *testing.T) {
	t.Parallel()
	running, left := make(chan struct{}), make(chan struct{})
	type news struct{ flowing, paused error }
	told := make(chan news, 1)
	var s *stand
	s = start(t, true, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // five bytes
		close(running)
		<-left
		s.srv.tick.Add(settled)
		if _, err := io.WriteString(w, "x"); err != nil {
			t.Error(err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		s.srv.look()
		var n news
		n.flowing = r.Context().Err()
		<-r.Context().Done()
		n.paused = r.Context().Err()
		told <- n
	})
	c := s.dial()
	c.send(post("hello"))
	<-running
	c.half()
	close(left)
	if n := <-told; n.flowing != nil || n.paused == nil {
		t.Errorf("while it flows: %v, when it pauses: %v", n.flowing, n.paused)
	}
}

// TestAClientThatSendsOnHasNotLeft: looks at connections are counted, not waited
// for.
func TestAClientThatSendsOnHasNotLeft(t *testing.T) {
	t.Parallel()
	var s *stand
	s = start(t, true, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) //nolint:errcheck // one byte
		for range 5 {
			s.srv.tick.Add(settled)
			s.srv.look()
		}
		fmt.Fprint(w, r.Context().Err())
	})
	c := s.dial()
	c.send(post("1") + post("2"))
	for range 2 {
		if got := c.must(); !strings.HasSuffix(got, "\n<nil>") {
			t.Errorf("the context: %s", got)
		}
	}
}

func TestAFailedWriteCancels(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 2)
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Error(err)
		}
		io.WriteString(w, "x") //nolint:errcheck // Flush says so
		ended <- rc.Flush()
		ended <- r.Context().Err()
	})
	c := s.dial()
	c.send(post("hello"))
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Flush = %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the context: %v", err)
	}
	c.gone()
}

func TestDeadlinesEndWithTheirRequest(t *testing.T) {
	t.Parallel()
	waits := make(chan struct{})
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.Header.Get("X-Do") == "deadline" {
			buf := make([]byte, 10)
			io.ReadFull(r.Body, buf[:4]) //nolint:errcheck // they have come
			noError(t, rc.SetReadDeadline(time.Now().Add(-time.Second)))
			_, err := r.Body.Read(buf)
			for err == nil { // a byte that came with the others is no wait
				_, err = r.Body.Read(buf)
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a read past its deadline: %v", err)
			}
			noError(t, rc.SetReadDeadline(time.Time{}))
			close(waits)
			_, err = io.ReadAll(r.Body)
			noError(t, rc.SetReadDeadline(time.Now().Add(-time.Second)))
			noError(t, rc.SetWriteDeadline(time.Now().Add(time.Hour)))
			fmt.Fprint(w, err)
			return
		}
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(w, string(body), err)
	})
	c := s.dial()
	text := post("hello", "X-Do: deadline")
	c.send(text[:len(text)-1])
	<-waits
	c.send(text[len(text)-1:])
	if got := c.must(); !strings.HasSuffix(got, "\n<nil>") {
		t.Errorf("the rest of the body: %s", got)
	}
	next := post("next")
	c.send(next[:len(next)-1])
	c.send(next[len(next)-1:])
	if got := c.must(); !strings.HasSuffix(got, "\nnext<nil>") {
		t.Errorf("the next request: %s", got)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestABodyCannotBeReadAfterItsRequest(t *testing.T) {
	t.Parallel()
	bodies := make(chan io.Reader, 2)
	s := start(t, true, func(_ http.ResponseWriter, r *http.Request) { bodies <- r.Body })
	c := s.dial()
	c.send(post("first") + post("second"))
	c.must()
	c.must()
	for range 2 {
		if n, err := (<-bodies).Read(make([]byte, 10)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("Read = %d, %v", n, err)
		}
	}
}

func TestMaxBytesReader(t *testing.T) {
	t.Parallel()
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 10))
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
	})
	c := s.dial()
	go c.Write([]byte(post(strings.Repeat("x", 1<<20)))) //nolint:errcheck // the server need not take it
	if got := c.must(); !strings.HasPrefix(got, "413") || !strings.Contains(got, "close true") {
		t.Errorf("the answer: %s", got)
	}
	c.gone()
}

func TestAPanicIsLoggedAndAnAbortIsNot(t *testing.T) {
	t.Parallel()
	s := start(t, true, echo)
	for _, do := range []string{"abort", "panic"} {
		c := s.dial()
		c.send(post("x", "X-Do: "+do))
		if text, err := c.answer(); err == nil {
			t.Errorf("%s: a whole answer: %s", do, text)
		}
		c.gone()
		if do == "abort" && s.log.String() != "" {
			t.Errorf("an abort is logged: %s", s.log)
		}
	}
	if !strings.Contains(s.log.String(), "http: panic serving 127.0.0.1") || !strings.Contains(s.log.String(), "on purpose") {
		t.Errorf("a panic is not logged: %q", s.log)
	}
}

func TestABadLengthOfTheHandlersIsIgnored(t *testing.T) {
	t.Parallel()
	s := start(t, true, echo)
	c := s.dial()
	c.send(post("x", "X-Do: bad length"))
	if got := c.must(); !strings.Contains(got, "Content-Length:[5]") || !strings.Contains(s.log.String(), `invalid Content-Length of "-3"`) {
		t.Errorf("%s\n%s", got, s.log)
	}
}

func TestShutdownLetsWhatRunsFinish(t *testing.T) {
	t.Parallel()
	running, finish := make(chan struct{}), make(chan struct{})
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) == "wait" || r.URL.Path == "/cold" {
			running <- struct{}{}
			<-finish
		}
		w.Write(body) //nolint:errcheck // the client compares
	})
	idle, hot, half := s.dial(), s.dial(), s.dial()
	idle.send(post("x"))
	idle.must()
	hot.send(post("wait"))
	<-running
	half.send("GE") // it becomes net/http's while the server drains
	half.send("T /cold HTTP/1.1\r\n")
	cold := s.dial()
	cold.send(get("/cold"))
	<-running
	done := make(chan error, 1)
	go func() { done <- s.srv.Shutdown(context.Background()) }()
	idle.gone()
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.addr); err == nil {
		c.Close()
		t.Error("the server still accepts")
	}
	half.send("Host: x\r\n\r\n")
	<-running
	close(finish)
	for name, c := range map[string]*client{"hot": hot, "cold": cold, "half": half} {
		if got := c.must(); !strings.HasPrefix(got, "200") || !strings.Contains(got, "close true") {
			t.Errorf("%s: %s", name, got)
		}
		c.gone()
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

func TestShutdownCutsOffWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	running, ended := make(chan struct{}), make(chan struct{})
	s := start(t, true, func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		<-r.Context().Done() // the body was not read: nobody looks whether the client leaves
		close(ended)
	})
	c := s.dial()
	c.send(post("x"))
	<-running
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v", err)
	}
	<-ended
	c.gone()
}

// TestTimeouts moves the clock that the watch goes by.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	const timeout = time.Hour
	for name, begin := range map[string]struct {
		send, then string
		closed     bool
	}{
		"nothing sent":    {"", "", true},
		"half a head":     {"POST /v1", "", true},
		"idle":            {post("x"), "", true},
		"a second head":   {post("x") + "PO", "", true},
		"a running":       {post("wait"), "", false},
		"half a body":     {strings.TrimSuffix(post("wait"), "t"), "t", false},
		"handed to other": {get("/cold"), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *stand
			reading := make(chan struct{}, 1)
			pass := func() { s.srv.tick.Add(ticks(timeout) + 2); s.srv.look() }
			s = startWith(t, true, func(w http.ResponseWriter, r *http.Request) {
				reading <- struct{}{}
				body, err := io.ReadAll(r.Body)
				if string(body) == "wait" {
					pass()
				}
				fmt.Fprint(w, string(body), err, r.Context().Err())
				<-reading
			}, func(h *http.Server) { h.IdleTimeout, h.ReadHeaderTimeout = timeout, timeout })
			c := s.dial()
			c.send(begin.send)
			if strings.HasPrefix(begin.send, post("x")) {
				c.must()
			}
			if begin.then != "" {
				<-reading
				reading <- struct{}{}
				pass()
				c.send(begin.then)
			}
			if !begin.closed {
				if got := c.must(); !strings.HasSuffix(got, "<nil> <nil>") {
					t.Errorf("the answer: %s", got)
				}
				return
			}
			over := make(chan struct{})
			go func() { defer close(over); c.gone() }()
			for waiting := true; waiting; {
				select {
				case <-over:
					waiting = false
				default:
					pass() // until the bytes and the connection have arrived
				}
			}
		})
	}
}

func TestTicksAreNeverTooShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, tickTime: 1, tickTime + 1: 2, time.Second: 10} {
		if got := ticks(d); got != want {
			t.Errorf("ticks(%v) = %d, want %d", d, got, want)
		}
	}
}

func TestTheDateIsTheSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(&http.Server{}, nil)
		for range 3 {
			if got, want := s.now(), time.Now().UTC().Format(http.TimeFormat); got != want {
				t.Errorf("Date: %s, want %s", got, want)
			}
			<-time.After(700 * time.Millisecond) // on the bubble's clock: nobody waits
		}
	})
}

func TestWithoutRoutesItIsNetHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, false, echo)
	c := s.dial()
	c.send(post("x"))
	if got := c.must(); !strings.HasPrefix(got, "200") {
		t.Error(got)
	}
	if err := s.srv.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	c.gone()
}

// TestLinesAreAHeader writes lines instead of what was set before.
func TestLinesAreAHeader(t *testing.T) {
	t.Parallel()
	s := start(t, true, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Before", "lost")
		w.(interface {
			WriteLines(status int, lines head.Lines)
		}).WriteLines(201, head.Lines{
			{Name: "Content-Type", Value: "text/x"},
			{Name: "X-Own", Value: "a"},
			{Name: "Content-Length", Value: "4"},
			{Name: "X-Own", Value: "b\r\nX-In: c"},
			{Name: "Connection", Value: "close"},
		})
		w.WriteHeader(500)
		w.Write([]byte("body")) //nolint:errcheck // the test reads it
	})
	c := s.dial()
	c.send(post("x") + post("x"))
	const want = "201 Created map[Content-Length:[4] Content-Type:[text/x] X-Own:[a b  X-In: c]] length 4 [] close false\nbody"
	for range 2 {
		if got := c.must(); got != want {
			t.Errorf("the answer:\n%s\nwant\n%s", got, want)
		}
	}
}
