package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/journal"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// torturer is a TCP proxy in front of Postgres that breaks connections in the
// middle of whatever they carry.
type torturer struct {
	target   string
	listener net.Listener
	calm     atomic.Bool
	faults   atomic.Int64
	conns    sync.WaitGroup

	mu   sync.Mutex
	rand *rand.Rand
}

// newTorturer starts one and returns it with a pool that goes through it.
func newTorturer(t *testing.T, db *pgxpool.Pool, seed uint64) (*torturer, *pgxpool.Pool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := db.Config()
	p := &torturer{
		target: fmt.Sprintf("%s:%d", cfg.ConnConfig.Host, cfg.ConnConfig.Port), listener: listener,
		rand: rand.New(rand.NewPCG(seed, 0)),
	}
	cfg.ConnConfig.Host, cfg.ConnConfig.Port = "127.0.0.1", uint16(listener.Addr().(*net.TCPAddr).Port)
	cfg.ConnConfig.Fallbacks = nil
	cfg.ConnConfig.ConnectTimeout, cfg.MaxConns = 500*time.Millisecond, 16 // what hangs counts until it has ended
	p.conns.Go(p.accept)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		listener.Close()
		p.conns.Wait()
	})
	return p, pool
}

func (p *torturer) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.conns.Go(func() {
			defer client.Close()
			server, err := net.Dial("tcp", p.target)
			if err != nil {
				return
			}
			defer server.Close()
			var back sync.WaitGroup
			back.Go(func() { p.pump(server, client) })
			p.pump(client, server)
			back.Wait()
		})
	}
}

// What becomes of a piece of data.
const (
	passed = iota
	cut    // the connection ends before it: what it asks for never happens, or its answer is lost
	torn   // … in the middle of it
	reset  // … with a reset, so that what is on its way is lost too
	hole   // it vanishes, and so does all that follows, until the client has given up
	slow   // it comes a little later
)

// fate draws: one in 240 piece meets something.
func (p *torturer) fate() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.rand.IntN(1200); n < slow && !p.calm.Load() {
		p.faults.Add(1)
		return n + 1
	}
	return passed
}

// pump carries one direction until it ends; then both end.
func (p *torturer) pump(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	vanish := false
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if vanish {
			continue
		}
		switch p.fate() {
		case cut:
			return
		case torn:
			to.Write(buf[:n/2]) //nolint:errcheck // the end follows
			return
		case reset:
			from.(*net.TCPConn).SetLinger(0) //nolint:errcheck // it may be closed
			to.(*net.TCPConn).SetLinger(0)   //nolint:errcheck // it may be closed
			return
		case hole:
			vanish = true
			from.SetReadDeadline(time.Now().Add(2 * haste)) //nolint:errcheck // it is open
			continue
		case slow:
			timer := time.NewTimer(2 * time.Millisecond)
			<-timer.C
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// hasty is a Store whose calls give up soon, so that a black hole costs little.
type hasty struct {
	*Store
	transactions *atomic.Int64
}

const haste = 80 * time.Millisecond

func (h hasty) Commit(ctx context.Context, b *ledger.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, haste)
	defer cancel()
	h.transactions.Add(1)
	return h.Store.Commit(ctx, b)
}

func (h hasty) ReadLog(ctx context.Context, logID, batch int64) (ledger.Open, error) {
	ctx, cancel := context.WithTimeout(ctx, haste)
	defer cancel()
	return h.Store.ReadLog(ctx, logID, batch)
}

func (h hasty) EnsureAccounts(ctx context.Context, claims []ledger.Claim) error {
	ctx, cancel := context.WithTimeout(ctx, haste)
	defer cancel()
	return h.Store.EnsureAccounts(ctx, claims)
}

func (h hasty) TakeOver(ctx context.Context, logID int64, silence time.Duration) ([]*ledger.Settlement, error) {
	ctx, cancel := context.WithTimeout(ctx, haste)
	defer cancel()
	return h.Store.TakeOver(ctx, logID, silence)
}

// told is what a caller of the writer was told of a request.
type told struct {
	request string
	key     string
	refused bool // for good or for now: it must not be on the ledger
	failed  bool // it could not be admitted: it may be there, at no cost
	settled bool // it must be there, exactly
	cost    money.NanoUSD
}

// tortureTransactions is how many transactions the writers try.
const tortureTransactions = 10_000

// TestTheWriterUnderTorture runs the writers of four replicas, two with a journal,
// through connections that break before, in and after every kind of message.
// They believe each other dead now and then. Whatever was answered with success
// is on the ledger once and exactly, refusals are not, and no key is over its
// budget.
func TestTheWriterUnderTorture(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, Schema, Migrations)
	set := settings
	set.Silence, set.AdmitTimeout = 120*time.Millisecond, 2*time.Second
	var transactions atomic.Int64
	var torturers []*torturer
	var all []told
	var mu sync.Mutex
	var users, writers sync.WaitGroup
	var stops []func()
	for n := range 4 {
		p, pool := newTorturer(t, db, uint64(n))
		torturers = append(torturers, p)
		var j ledger.Journal
		if n < 2 {
			opened, _, err := journal.Open[ledger.Record](t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			j = opened
		}
		w := ledger.NewWriter(hasty{New(pool), &transactions}, j, nil, set, silent{})
		writers.Go(func() {
			if err := w.Run(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		stops = append(stops, w.Stop)
		for g := range 4 {
			users.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), uint64(g)))
				var mine []told
				for transactions.Load() < tortureTransactions {
					mine = append(mine, ask(t.Context(), w, r))
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, mine...)
			})
		}
	}
	users.Wait()
	faults := int64(0)
	for _, p := range torturers {
		p.calm.Store(true)
		faults += p.faults.Load()
	}
	waitFor(t, func() []bool { // nothing runs, so each log gives its slices back
		var left int
		if err := db.QueryRow(t.Context(), `select count(*) from spend.slices join spend.logs using (log_id) where fenced_at is null`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if left > 0 {
			return nil
		}
		return []bool{true}
	})
	for _, stop := range stops {
		stop()
	}
	writers.Wait()
	settleTheRest(t, db)
	a := auditClean(t, New(db))
	rows, adjusted := verify(t, db, all)
	if faults < 100 || a.OpenRequests != 0 || a.Held != 0 {
		t.Errorf("%d faults, %d requests open, %d held", faults, a.OpenRequests, a.Held)
	}
	t.Logf("%d transactions, %d faults, %d requests, %d rows, %d of them adjustments, %d logs", transactions.Load(), faults, len(all), rows, adjusted, a.Logs)
}

// silent hears nothing: there is too much trouble to be told.
type silent struct{}

func (silent) Committed(int, int, time.Duration) {}
func (silent) Trouble(string, error)             {}

// tortureBudget is what each limited key may spend: soon used up.
const tortureBudget = 20_000

// ask runs one request through a writer, as the proxy would.
func ask(ctx context.Context, w *ledger.Writer, r *rand.Rand) told {
	key := fmt.Sprint("k", r.IntN(40))
	a := &ledger.Admission{Request: request(key, "team"), Hold: 100}
	if r.IntN(2) == 0 {
		a.KeyID = fmt.Sprint("limited", r.IntN(40))
		a.Claims = ofKey(a.KeyID, budget(tortureBudget))
	}
	is := told{request: a.RequestID, key: a.KeyID, cost: money.NanoUSD(1 + r.IntN(100))}
	admit, cancel := ctx, context.CancelFunc(func() {})
	if r.IntN(20) == 0 { // the client is impatient
		admit, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3000))*time.Microsecond)
	}
	defer cancel()
	ticket, err := w.Admit(admit, a)
	if err != nil {
		_, is.refused = errors.AsType[*ledger.Refusal](err)
		is.failed = !is.refused
		if is.failed && ctx == admit { // as any client it comes again later, or all would do nothing but ask
			again := time.NewTimer(settings.Retry)
			<-again.C
		}
		return is
	}
	if r.IntN(3) == 0 {
		ticket.Progress(&ledger.Progress{MessageID: "msg", Usage: settlement(a.Request, 1).Usage, Cost: is.cost / 2})
	}
	is.settled = ticket.Settle(ctx, settlement(a.Request, is.cost)) == nil
	return is
}

// settleTheRest has a new replica take over what the others left open.
func settleTheRest(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	set := settings
	set.Silence = time.Millisecond
	_, stop := startWriter(t, db, set)
	defer stop()
	waitFor(t, func() []bool {
		var open, held int64
		err := db.QueryRow(t.Context(), `select count(*), coalesce(sum(held_nano_usd), 0) from spend.open_requests`).Scan(&open, &held)
		if err != nil {
			t.Fatal(err)
		}
		if open != 0 || held != 0 {
			return nil
		}
		return []bool{true}
	})
}

// verify holds what callers were told against the ledger.
func verify(t *testing.T, db *pgxpool.Pool, all []told) (total, adjusted int) {
	t.Helper()
	type entry struct {
		rows        int
		adjustments []money.NanoUSD
		cost        money.NanoUSD
	}
	on := map[string]entry{}
	rows, err := db.Query(t.Context(), `select request_id, cost_nano_usd from spend.spend_logs`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var cost money.NanoUSD
		if err := rows.Scan(&id, &cost); err != nil {
			t.Fatal(err)
		}
		total++
		id, _, isAdjustment := strings.Cut(id, ".adj")
		e := on[id]
		if e.cost += cost; isAdjustment {
			adjusted++
			e.adjustments = append(e.adjustments, cost)
		} else {
			e.rows++
		}
		on[id] = e
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	spent := map[string]money.NanoUSD{}
	for _, is := range all {
		e := on[is.request]
		spent[is.key] += e.cost
		switch {
		case is.settled && (e.rows != 1 || e.cost != is.cost):
			t.Errorf("%s was settled at %d and has %d rows of %d, adjusted by %d", is.request, is.cost, e.rows, e.cost, e.adjustments)
		case is.refused && e.rows != 0:
			t.Errorf("%s was refused and has %d rows", is.request, e.rows)
		case is.failed && (e.rows > 1 || e.cost != 0):
			t.Errorf("%s was not admitted and has %d rows of %d", is.request, e.rows, e.cost)
		case e.rows > 1:
			t.Errorf("%s has %d rows", is.request, e.rows)
		}
		delete(on, is.request)
	}
	if len(on) > 0 {
		t.Errorf("%d requests are on the ledger that nobody made", len(on))
	}
	for key, cost := range spent {
		if strings.HasPrefix(key, "limited") && cost > tortureBudget {
			t.Errorf("%s has spent %d of %d", key, cost, tortureBudget)
		}
	}
	return total, adjusted
}
