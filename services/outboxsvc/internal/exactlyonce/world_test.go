package exactlyonce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	client "github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/autumn"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relaytest"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// patience is how long the client waits for an answer.
const patience = 80 * time.Millisecond

// world is everything that a seed needs.
type world struct {
	plan
	rnd      *rand.Rand
	clock    *relaytest.Clock
	book     *relaytest.Book
	sim      *autumn.Server
	wire     wire
	relays   []*relay.Service
	added    int
	total    map[string]money.NanoUSD // by team
	hands    int                      // charges that were verified by hand
	accepted int                      // drifts that were accepted by hand

	mu      sync.Mutex
	history map[string][]string // of attempts, by charge
}

func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	w := &world{plan: p, rnd: rand.New(rand.NewPCG(p.seed, 11)), clock: relaytest.NewClock(), total: map[string]money.NanoUSD{}, history: map[string][]string{}}
	w.book = relaytest.New(w.clock.Now)
	w.sim = autumn.New(autumn.Options{DefaultGrant: 1000, Now: w.clock.Now})
	srv := w.wire.serve(w.sim)
	t.Cleanup(srv.Close)
	var dedupe client.Dedupe = client.IdempotencyKey{}
	if p.lock {
		dedupe = client.Lock{}
	}
	for i := range p.replicas {
		sink := client.New(client.Options{
			URL: srv.URL, Key: secret.New("am_sk_test_proof"), FeatureID: "credits", InstallationID: "proof",
			Concurrency: 8, Timeout: patience, Dedupe: dedupe,
		})
		w.relays = append(w.relays, relay.New(&mortal{Book: w.book, p: p.kills, rnd: rand.New(rand.NewPCG(p.seed, uint64(i)))}, sink, relay.Options{
			Worker: fmt.Sprint("replica ", i), Concurrency: 8, Now: w.clock.Now,
			Jitter:  func(d time.Duration) time.Duration { return d / 2 },
			Observe: w.note,
		}))
	}
	return w
}

// note keeps what became of a charge, for failures.
func (w *world) note(a relay.Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := a.Charge.ChargeID
	w.history[id] = append(w.history[id], fmt.Sprintf("%s attempt %d round %d unsure %t: %s %s %s (%v)",
		w.clock.Now().Format("02T15:04:05"), a.Charge.Attempts, a.Charge.KeyRound, a.Charge.Unsure, a.Verdict.Outcome, a.Verdict.Proof, a.Verdict.Error, a.Err))
}

// mortal is the way to billing of workers that die: between marking and sending,
// and between the answer and its settlement. What they were about to say is
// never heard.
type mortal struct {
	*relaytest.Book
	mu  sync.Mutex
	p   float64
	rnd *rand.Rand
}

var errDied = errors.New("the worker died")

func (m *mortal) dies() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rnd.Float64() < m.p
}

func (m *mortal) MarkSent(ctx context.Context, id string, token int64, via relay.Via) error {
	err := m.Book.MarkSent(ctx, id, token, via)
	if err == nil && m.dies() {
		return errDied
	}
	return err
}

func (m *mortal) Settle(ctx context.Context, s relay.Settlement) error {
	if m.dies() {
		return errDied
	}
	return m.Book.Settle(ctx, s)
}

// spend freezes a charge of a random team.
func (w *world) spend() {
	team := fmt.Sprint("team", w.rnd.IntN(w.teams))
	w.added++
	amount := money.NanoUSD(1+w.rnd.Int64N(1e9)) * money.MicroCredit
	if w.rnd.IntN(10) == 0 {
		amount = money.NanoUSD(1+w.rnd.Int64N(5)) * money.MicroCredit // hardly anything
	}
	var seq int64 = 1
	for _, c := range w.book.Charges() {
		if c.TeamID == team {
			seq++
		}
	}
	w.book.Add(fmt.Sprintf("charge-%d", w.added), team, seq, amount)
	w.total[team] += amount
}

// pass lets the replicas deliver side by side, and read what is due. Errors are
// what the plan is made of.
func (w *world) pass(ctx context.Context) {
	ctx = w.wire.watch(ctx)
	var g sync.WaitGroup
	for _, r := range w.relays {
		g.Go(func() { _, _ = r.Deliver(ctx) })
	}
	g.Wait()
	w.clock.Advance(time.Second)
	_, _ = w.relays[0].Reconcile(ctx, nil)
	w.wire.still() // what is under way happens now, not days later
}

// live runs the plan for six days: spending, faults, and three days without
// Autumn in between.
func (w *world) live(t *testing.T) {
	t.Helper()
	w.faults(t, w.rules)
	start := w.clock.Now()
	for w.clock.Now().Sub(start) < 6*24*time.Hour {
		if w.added < w.teams*w.charges && w.rnd.IntN(4) == 0 {
			w.spend()
		}
		day := w.clock.Now().Sub(start) / (24 * time.Hour)
		switch {
		case w.down != "" && day >= 1 && day < 4:
			w.faults(t, append([]autumn.Fault{{Fault: w.down, Path: "/v1/track"}}, w.rules...))
		default:
			w.faults(t, w.rules)
		}
		w.pass(t.Context())
		w.clock.Advance(time.Duration(1+w.rnd.IntN(1500)) * time.Second)
	}
}

// faults sets the rules, when they are not those that hold.
func (w *world) faults(t *testing.T, rules []autumn.Fault) {
	t.Helper()
	for i := range rules {
		rules[i].Seed += uint64(w.clock.Now().Unix()) // each change draws anew
	}
	if err := w.sim.SetFaults(rules...); err != nil {
		t.Fatal(err)
	}
}

// settle ends the faults and lets everything come to rest. Charges that only a
// human can settle are settled as a human would who looks at Autumn's side.
func (w *world) settle(t *testing.T) {
	t.Helper()
	w.faults(t, nil)
	for range 400 {
		w.clock.Advance(3 * time.Minute)
		w.pass(t.Context())
		w.byHand(t)
		w.accept()
		if w.quiet() {
			break
		}
	}
	for range 3 { // what is left over shows now
		w.clock.Advance(25 * time.Hour)
		w.pass(t.Context())
	}
}

// byHand resolves what is dead, as a human does who looks at the sink.
func (w *world) byHand(t *testing.T) {
	t.Helper()
	for _, c := range w.book.Charges() {
		if c.State != relaytest.Dead {
			continue
		}
		if c.Unsure {
			w.hands++
		}
		if calls, sum := w.applied(c); calls > 0 {
			w.resolve(t, relay.Resolve{ChargeID: c.ChargeID, Applied: true, AppliedNanoUSD: money.NanoUSD(sum / 1000)}) // of 1e-10 credits
			continue
		}
		w.resolve(t, relay.Resolve{ChargeID: c.ChargeID})
	}
}

func (w *world) resolve(t *testing.T, r relay.Resolve) {
	t.Helper()
	if _, err := w.relays[0].Resolve(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// accept lets a human accept drifts that keep charges from being verified.
func (w *world) accept() {
	newest := map[string]relay.Finding{}
	for _, f := range w.book.Findings {
		newest[f.TeamID] = f
	}
	for team, f := range newest {
		if !f.Fixed {
			w.book.Accept(team)
			w.accepted++
		}
	}
}

func (w *world) quiet() bool {
	for _, c := range w.book.Charges() {
		if c.State != relaytest.Posted && c.State != relaytest.Short {
			return false
		}
	}
	return true
}

// applied asks the oracle how often and how much of a charge was deducted, under
// all the rounds of its key.
func (w *world) applied(c relaytest.Charge) (calls int, sum autumn.Amount) {
	byKey := w.sim.AppliedByKey()
	for round := 1; round <= c.KeyRound; round++ {
		key := "llm-proxy:default:proof:batch:" + c.ChargeID
		if round > 1 {
			key += fmt.Sprint(":r", round)
		}
		calls += byKey[key].Calls
		sum += byKey[key].Credits
	}
	return calls, sum
}
