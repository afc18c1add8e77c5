package chaos

import (
	"net"
	"sync"
	"testing"
	"time"
)

// link is a TCP proxy whose weather can change. Toxiproxy would do, but its
// library brings a router, a second logger and two generations of protobuf, and
// it has no way to lose the answer to what the server has already done, which
// is the fault that matters most here.
type link struct {
	addr, target string
	listener     net.Listener
	pumps        sync.WaitGroup

	mu      sync.Mutex
	now     weather
	changed chan struct{} // closed when the weather changes
	pairs   map[*pair]struct{}
	closed  bool
	cuts    int
	dialed  func(addr string) // told of connections to the server; nil: nobody is
}

// weather is what happens to each piece of data, whoever sends it.
type weather struct {
	delay time.Duration
	// hole lets nothing pass, not even the end of a connection, until the weather
	// changes: what was sent then arrives.
	hole bool
	// refuse closes new connections at once.
	refuse bool
	// lose drops the server's next answer with its connection: the client cannot
	// know what became of its request.
	lose bool
}

// pair is one connection on both sides.
type pair struct {
	client, server *net.TCPConn
	once           sync.Once
	gone           chan struct{}
}

func newLink(t testing.TB, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{
		addr: listener.Addr().String(), target: target, listener: listener,
		changed: make(chan struct{}), pairs: map[*pair]struct{}{},
	}
	l.pumps.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

func (l *link) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return // close
		}
		l.pumps.Go(func() { l.serve(conn.(*net.TCPConn)) })
	}
}

func (l *link) serve(client *net.TCPConn) {
	defer client.Close()
	if w, _ := l.look(); w.refuse {
		return
	}
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer server.Close()
	p := &pair{client: client, server: server.(*net.TCPConn), gone: make(chan struct{})}
	if !l.add(p) {
		return
	}
	defer l.remove(p)
	var back sync.WaitGroup
	back.Go(func() { l.pump(p, p.server, p.client) })
	l.pump(p, p.client, p.server)
	back.Wait()
}

// pump carries one direction until it ends.
func (l *link) pump(p *pair, from, to *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !l.pass(p, n > 0 && from == p.server) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				p.end(false)
				return
			}
		}
		if err != nil {
			to.CloseWrite() //nolint:errcheck // the other side may be gone
			return
		}
	}
}

// pass holds a piece back as the weather wants, and is false when its connection
// ends instead.
func (l *link) pass(p *pair, answer bool) bool {
	for {
		w, changed := l.look()
		switch {
		case w.lose && answer:
			l.count(1)
			p.end(true)
			return false
		case w.hole:
			select {
			case <-changed:
				continue
			case <-p.gone:
				return false
			}
		case w.delay > 0:
			timer := time.NewTimer(w.delay)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-p.gone:
				return false
			}
		}
		return true
	}
}

// end closes both sides; a hard end resets them, so that what is on its way is
// lost too.
func (p *pair) end(hard bool) {
	p.once.Do(func() {
		close(p.gone)
		for _, c := range []*net.TCPConn{p.client, p.server} {
			if hard {
				c.SetLinger(0) //nolint:errcheck // it may be closed already
			}
			c.Close()
		}
	})
}

func (l *link) look() (weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// set changes the weather.
func (l *link) set(w weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = w
	close(l.changed)
	l.changed = make(chan struct{})
}

// cut ends every connection.
func (l *link) cut(hard bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts += len(l.pairs)
	for p := range l.pairs {
		p.end(hard)
	}
}

// tell has somebody be told of connections to the server.
func (l *link) tell(dialed func(addr string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialed = dialed
}

func (l *link) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts += n
}

// total is how many connections were cut.
func (l *link) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

func (l *link) add(p *pair) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pairs[p] = struct{}{}
	if l.dialed != nil {
		l.dialed(p.server.LocalAddr().String())
	}
	return !l.closed
}

func (l *link) remove(p *pair) {
	p.end(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pairs, p)
}

func (l *link) close() {
	l.listener.Close()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cut(true)
	l.pumps.Wait()
}
