package chaos

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// answerIn is how long the outbox waits for Autumn.
const answerIn = 300 * time.Millisecond

// clock is the time of everything in a stand. It stands, until it is let go.
type clock struct {
	mu   sync.Mutex
	now  time.Time
	runs time.Time // since when it goes; zero: it stands
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.runs.IsZero() {
		return c.now.Add(time.Since(c.runs))
	}
	return c.now
}

// run lets the clock go from now on, for what is measured.
func (c *clock) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = time.Now()
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// booksStand is billing on Postgres, two replicas of the outbox and Autumn's
// simulator, on a clock that the test moves. The services are the real ones, and
// run in the test's process because no other could have its clock. They are
// killed by their connections: all are reset, and none is had any more, so that
// whatever the service still does reaches nobody, as with kill -9.
type booksStand struct {
	booksPlan
	t        testing.TB
	clock    *clock
	rnd      *rand.Rand
	database string
	proxysvc string
	ledger   ledger
	sim      *autumn.Server
	autumn   *httptest.Server
	requests open
	ended    sync.WaitGroup

	billing  *incarnation
	replicas [2]*incarnation
	outboxes map[string]string // settings of the outbox that are not the usual ones
	patience time.Duration     // how long the outbox waits for Autumn
	deaths   int
}

// incarnation is a service from its start to its death.
type incarnation struct {
	addr  string
	links []*link // to everything that it calls, and to itself
	front *link   // to itself
	stop  context.CancelFunc
	conn  *grpc.ClientConn
}

// kill lets nothing more come from a service.
func (i *incarnation) kill() {
	for _, l := range i.links {
		l.set(weather{refuse: true})
		l.cut(true)
	}
	i.stop()
}

func newBooksStand(t testing.TB, p booksPlan) *booksStand {
	t.Helper()
	s := &booksStand{
		booksPlan: p, t: t, clock: &clock{now: time.Now().UTC()}, rnd: rand.New(rand.NewPCG(p.seed, 22)), patience: answerIn,
		database: pgtest.Empty(t),
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxysvc := grpc.NewServer()
	proxyv1.RegisterSpendServiceServer(proxysvc, &s.ledger)
	go proxysvc.Serve(lis) //nolint:errcheck // it ends with Stop
	t.Cleanup(proxysvc.Stop)
	s.proxysvc = lis.Addr().String()
	s.sim = autumn.New(autumn.Options{SecretKey: autumnKey, DefaultGrant: 1000, Now: s.clock.Now})
	s.autumn = s.requests.serve(s.sim)
	t.Cleanup(s.autumn.Close)
	t.Cleanup(s.ended.Wait)
	s.startBilling()
	for i := range s.replicas {
		s.startReplica(i)
	}
	return s
}

// linkTo makes a link that ends with the test at the latest.
func (s *booksStand) linkTo(i *incarnation, addr string) *link {
	l := newLink(s.t, addr)
	i.links = append(i.links, l)
	return l
}

// startBilling starts billing anew and leads the replicas to it.
func (s *booksStand) startBilling() {
	s.t.Helper()
	i := &incarnation{addr: freePort(s.t)}
	db := s.linkTo(i, postgresAddr(s.t, s.database))
	cfg, err := billingsvc.LoadConfig(booksSettings(map[string]string{
		"DATABASE_URL": atAddr(s.t, s.database, db.addr), "PROXYSVC_TARGET": s.proxysvc, "BILLING_SYNC_INTERVAL": "1h",
		"BILLINGSVC_GRPC_LISTEN": i.addr, "BILLINGSVC_HTTP_LISTEN": freePort(s.t), "BILLINGSVC_DRAIN": "1s",
	}))
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.Now, cfg.Serve.LogTo = s.clock.Now, io.Discard
	i.front = s.linkTo(i, i.addr)
	s.run(i, func(ctx context.Context) error { return billingsvc.Run(ctx, cfg) })
	s.billing = i
	_, err = billingv1.NewBillingServiceClient(i.conn).ListPauses(s.t.Context(), &billingv1.ListPausesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		s.t.Fatal(err)
	}
}

// startReplica starts a replica of the outbox anew.
func (s *booksStand) startReplica(n int) {
	s.t.Helper()
	i := &incarnation{addr: freePort(s.t)}
	sink := s.linkTo(i, s.autumn.Listener.Addr().String())
	sink.tell(s.requests.begin)
	settings := map[string]string{
		"BILLINGSVC_TARGET": s.linkTo(i, s.billing.front.addr).addr, "AUTUMN_API_KEY": autumnKey, "AUTUMN_API_URL": "http://" + sink.addr,
		"INSTALLATION_ID": "books", "AUTUMN_DEDUPE": s.device(), "OUTBOX_INTERVAL": "1h", "OUTBOX_RECONCILE_INTERVAL": "1h", "OUTBOX_READ_RATE": "500",
		"OUTBOXSVC_GRPC_LISTEN": i.addr, "OUTBOXSVC_HTTP_LISTEN": freePort(s.t), "OUTBOXSVC_DRAIN": "1s",
	}
	maps.Copy(settings, s.outboxes)
	cfg, err := outboxsvc.LoadConfig(booksSettings(settings))
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.Autumn.Timeout, cfg.Now, cfg.Stripe.Now, cfg.Serve.LogTo = s.patience, s.clock.Now, s.clock.Now, io.Discard
	i.front = s.linkTo(i, i.addr)
	s.run(i, func(ctx context.Context) error { return outboxsvc.Run(ctx, cfg) })
	s.replicas[n] = i
	_, err = s.outbox(n).GetStats(s.t.Context(), &outboxv1.GetStatsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		s.t.Fatal(err)
	}
}

// device is how a replica that starts dedupes.
func (s *booksStand) device() string {
	if s.switches {
		return []string{"lock", "idempotency_key"}[s.rnd.IntN(2)]
	}
	return s.dedupe
}

// run runs a service until it is killed or the test ends, and dials it.
func (s *booksStand) run(i *incarnation, serves func(context.Context) error) {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	i.stop = stop
	s.ended.Go(func() {
		if err := serves(ctx); err != nil && ctx.Err() == nil {
			s.t.Errorf("a service ended by itself: %v", err)
		}
	})
	s.t.Cleanup(i.kill)
	conn, err := serve.Caller{Token: secret.New(serviceToken)}.Dial(i.front.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	i.conn = conn
}

func (s *booksStand) outbox(n int) outboxv1.OutboxServiceClient {
	return outboxv1.NewOutboxServiceClient(s.replicas[n].conn)
}

func (s *booksStand) books() billingv1.BillingServiceClient {
	return billingv1.NewBillingServiceClient(s.billing.conn)
}

// postgresAddr is where a database is.
func postgresAddr(t testing.TB, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal("the database's url is not a url")
	}
	return u.Host
}

// atAddr is a database's url by way of an address.
func atAddr(t testing.TB, database, addr string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal("the database's url is not a url")
	}
	u.Host = addr
	return u.String()
}

func booksSettings(over map[string]string) func(string) string {
	return func(name string) string {
		switch name {
		case "LLM_PROXY_MASTER_KEY":
			return masterKey
		case "LLM_PROXY_SERVICE_TOKEN":
			return serviceToken
		}
		return over[name]
	}
}

// open knows which requests have reached a server and are not over, whether their
// clients wait for them or not. Each has a connection of its own.
type open struct {
	hold atomic.Pointer[func(*http.Request)] // is called before a request is served; nil: nothing is

	busy sync.WaitGroup // handlers, also of connections that are not the server's any more
	mu   sync.Mutex
	over map[string]chan struct{} // by the client's address
}

func (o *open) serve(h http.Handler) *httptest.Server {
	o.over = map[string]chan struct{}{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		o.busy.Add(1)
		defer o.busy.Done()
		if hold := o.hold.Load(); hold != nil {
			(*hold)(r)
		}
		h.ServeHTTP(rw, r)
	}))
	srv.Config.SetKeepAlivesEnabled(false)
	srv.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			o.end(c.RemoteAddr().String())
		}
	}
	srv.Start()
	return srv
}

// begin notes a connection, whose end may have been told already.
func (o *open) begin(client string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.over[client]; ok {
		delete(o.over, client)
		return
	}
	o.over[client] = make(chan struct{})
}

func (o *open) end(client string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	over, ok := o.over[client]
	if !ok {
		o.over[client] = nil
		return
	}
	close(over)
	delete(o.over, client)
}

// still waits until no request is under way.
func (o *open) still() {
	for {
		o.mu.Lock()
		var wait chan struct{}
		for _, over := range o.over {
			if over != nil {
				wait = over
			}
		}
		o.mu.Unlock()
		if wait == nil {
			o.busy.Wait()
			return
		}
		<-wait
	}
}

// moment is a random part of a pass, in real time.
func (s *booksStand) moment() time.Duration {
	return time.Duration(s.rnd.Int64N(int64(30 * time.Millisecond)))
}

func (s *booksStand) String() string {
	return fmt.Sprintf("seed %d: dedupe %s (switches %t), breaking %t, down %q, %d teams, %d events, one sick of %s", s.seed, s.dedupe, s.switches, s.breaks, s.down, s.teams, s.events, s.sickness)
}
