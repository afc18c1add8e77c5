package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/load"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/proc"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/upstream"
)

// figures are what one target did in one round.
type figures struct {
	proxy, db     time.Duration // CPU a request
	ttfb, whole   load.Times
	lag, last     load.Times
	rate          float64 // requests a second
	memory        int64   // of the proxy, resident
	dbMemory      int64   // of Postgres, private
	failed        int64
	lost, doubled int64 // rows of the ledger
	wrong         int64 // rows that cost something else
	error         string
}

// total is the CPU of proxy and database.
func (f *figures) total() time.Duration { return f.proxy + f.db }

// round holds the figures of one round, by target. What is compared is compared
// within a round.
type round map[string]*figures

// subject is what is measured in a round: a target in a scenario, by name.
type subject struct {
	name   string
	target *target
	sc     scenario
}

// subjects are what a scenario compares.
func (s *stand) subjects(ctx context.Context, sc scenario) ([]subject, error) {
	var out []subject
	for _, v := range sc.variants {
		t, err := s.target(ctx, proxysvc)
		if err != nil {
			return nil, err
		}
		changed := sc
		v.change(&changed)
		out = append(out, subject{v.name, t, changed})
	}
	for _, name := range sc.targets {
		t, err := s.target(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, subject{name, t, sc})
	}
	return out, nil
}

// run measures one scenario: every subject in every round, each second round
// backwards, so that what changes with time on the machine falls on all alike.
// Where something cannot be undone that a variant needs, all rounds of the variants
// before it come first.
func (s *stand) run(ctx context.Context, sc scenario) ([]round, error) {
	say("%s: %s", sc.name, sc.about)
	if err := s.pace(ctx, sc.pace); err != nil {
		return nil, err
	}
	subjects, err := s.subjects(ctx, sc)
	if err != nil {
		return nil, err
	}
	rounds := make([]round, s.set.Rounds)
	for len(subjects) > 0 {
		n := 1
		for n < len(subjects) && (n >= len(sc.variants) || sc.variants[len(sc.variants)-len(subjects)+n].before == nil) {
			n++
		}
		if err := s.alternate(ctx, subjects[:n], rounds); err != nil {
			return nil, err
		}
		if subjects = subjects[n:]; len(subjects) > 0 {
			if err := sc.variants[len(sc.variants)-len(subjects)].before(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	if s.set.Profile != "" {
		return rounds, s.profile(ctx, sc)
	}
	return rounds, nil
}

// alternate measures subjects in turn, and adds their figures to the rounds.
func (s *stand) alternate(ctx context.Context, subjects []subject, rounds []round) error {
	order := slices.Clone(subjects)
	for i := range rounds {
		for _, sub := range order {
			f, err := s.measure(ctx, sub.sc, sub.target, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", sub.name, err)
			}
			if rounds[i] == nil {
				rounds[i] = round{}
			}
			rounds[i][sub.name] = f
			say("  %-13s %s", sub.name, f)
		}
		slices.Reverse(order)
	}
	return nil
}

func (f *figures) String() string {
	return fmt.Sprintf("%5.0f µs proxy %5.0f µs database  %6.0f/s  first byte %s, whole %s p50 %s p99, %d failed %s",
		micros(f.proxy), micros(f.db), f.rate, short(f.ttfb.At(0.5)), short(f.whole.At(0.5)), short(f.whole.At(0.99)), f.failed, f.error)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func short(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// measure sends one scenario's load to one target, and checks its books. A watcher
// looks at the target meanwhile; nil: none does.
func (s *stand) measure(ctx context.Context, sc scenario, t *target, w *watcher) (*figures, error) {
	before, err := s.openBooks(ctx)
	if err != nil {
		return nil, err
	}
	release, err := s.holdStreams(ctx, sc)
	if err != nil {
		return nil, err
	}
	tmpl, keys := sc.template(t), sc.keys(s.keys)
	var begun, ended reading
	var watching error
	res := load.Run(load.Spec{
		Addr: t.addr, Clients: sc.clients, Rate: sc.rate, Stagger: sc.length(),
		Next: func(n int64) load.Request { return load.Request{Template: tmpl, Key: keys[n%int64(len(keys))]} },
		Warm: max(time.Second, sc.length()*3/2), Measure: max(s.set.Measure, sc.length()*2),
		Begin: func() { begun = s.read(t); watching = w.begin() }, End: func() { ended = s.read(t) },
	})
	if err := errors.Join(begun.err, ended.err, watching); err != nil {
		return nil, err
	}
	held := release()
	if err := w.end(res); err != nil {
		return nil, err
	}
	f := &figures{
		ttfb: res.TTFB, whole: res.Whole, lag: res.Lag, last: res.Last, rate: float64(res.Done) / res.Took.Seconds(),
		memory: ended.proxy.Resident, dbMemory: ended.db.Private, failed: res.Failed, error: res.FirstError,
	}
	n := float64(res.Done + res.LeftDone)
	if sc.stream && !sc.leave {
		n = float64(res.Deltas) / float64(sc.pace.Deltas) // streams that run on count by what came of them
	}
	f.proxy = each(ended.proxy.Sub(begun.proxy).CPU, n)
	if t.books {
		f.db = each(ended.db.Sub(begun.db).CPU, n)
	}
	if t.books {
		res.Sent, res.Answered, f.failed = res.Sent+held.Sent, res.Answered+held.Answered, f.failed+held.Failed
		err = s.checkBooks(ctx, before, res, f)
	}
	return f, err
}

// holdStreams opens the streams that are to be open while a scenario is measured;
// release waits until they have ended.
func (s *stand) holdStreams(ctx context.Context, sc scenario) (release func() load.Result, err error) {
	if sc.hold == 0 {
		return func() load.Result { return load.Result{} }, nil
	}
	// Their end comes when the measurement is over.
	if err := s.pace(ctx, upstream.Pace{Gap: (s.set.Measure + 15*time.Second) / 2, Deltas: 2}); err != nil {
		return nil, err
	}
	before, err := s.seen(ctx)
	if err != nil {
		return nil, err
	}
	tmpl := scenario{body: 2 << 10, stream: true}.template(s.targets[proxysvc])
	done := make(chan load.Result, 1)
	go func() {
		done <- load.Run(load.Spec{
			Addr: s.targets[proxysvc].addr, Clients: sc.hold, Once: true, Begin: func() {}, End: func() {},
			Next: func(n int64) load.Request {
				return load.Request{Template: tmpl, Key: s.keys.many[n%int64(len(s.keys.many))]}
			},
		})
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for now := before; now.Begun < before.Begun+int64(sc.hold); <-tick.C {
		if now, err = s.seen(ctx); err != nil {
			return nil, err
		}
	}
	return func() load.Result { return <-done }, nil
}

// each divides what was used among requests.
func each(used time.Duration, n float64) time.Duration {
	if n == 0 {
		return 0
	}
	return time.Duration(float64(used) / n)
}

// reading is what was used until some instant.
type reading struct {
	proxy, db proc.Usage
	err       error
}

// read reads the target's processes and those that keep its books: Postgres, and
// keysvc, which is asked for keys.
func (s *stand) read(t *target) (r reading) {
	if len(t.pids) > 0 {
		if r.proxy, r.err = proc.Tree(t.pids...); r.err != nil {
			return r
		}
	}
	r.db, r.err = proc.Tree(s.postmaster, s.services["keysvc"].PID())
	return r
}
