package exactlyonce

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"sync"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
)

// wire knows which requests have left a client and are not over at the server,
// whether the client waits for them or not: those that nobody has read yet too.
// Each has a connection of its own. The clock must stand while there are any, for
// no request is under way for days.
type wire struct {
	// stall is what a request waits for before it is read. Nil: nothing.
	stall func()

	busy sync.WaitGroup // handlers, also of connections that are not the server's any more
	mu   sync.Mutex
	open map[string]chan struct{} // by the client's address; closed when the server is done with it
}

// serve serves requests and notes when their connections are over.
func (w *wire) serve(h http.Handler) *httptest.Server {
	w.open = map[string]chan struct{}{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.stall != nil {
			w.stall()
		}
		w.busy.Add(1)
		defer w.busy.Done()
		h.ServeHTTP(rw, r)
	}))
	srv.Config.SetKeepAlivesEnabled(false)
	srv.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			w.end(c.RemoteAddr().String())
		}
	}
	srv.Start()
	return srv
}

func (w *wire) end(client string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if over, ok := w.open[client]; ok {
		close(over)
		delete(w.open, client)
	}
}

// watch notes the connections of requests that are made under a context.
func (w *wire) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open[got.Conn.LocalAddr().String()] = make(chan struct{})
	}})
}

// still waits until no request is under way. None may begin meanwhile.
func (w *wire) still() {
	for {
		w.mu.Lock()
		var over chan struct{}
		for _, over = range w.open {
			break
		}
		w.mu.Unlock()
		if over == nil {
			w.busy.Wait()
			return
		}
		<-over
	}
}

// A request that the server reads long after its client has left would otherwise
// come days late on the clock of the proof, when its lock is long forgotten.
func TestTheClockStandsWhileARequestIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plan{lock: true, replicas: 1, teams: 1})
	w.pass(t.Context())
	w.book.Add("charge-1", "team0", 2, 1_000_000_000)
	w.sim.Grant("team0", 0)
	w.wire.stall = func() { <-time.After(5 * patience) }
	w.pass(t.Context())
	c := w.book.Charge("charge-1")
	if calls, _ := w.applied(c); c.State != relaytest.Ambiguous || calls != 1 {
		t.Errorf("after the pass the charge is %s and was applied %d times, want ambiguous and 1", c.State, calls)
	}
}
