package load

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to send and for how long.
type Spec struct {
	Addr string
	// Next makes the n-th request. It is called by many goroutines.
	Next func(n int64) Request
	// Clients is how many connections there are. Without a rate each sends its next
	// request when the last one is answered (a closed loop).
	Clients int
	// Rate is how many requests a second are due, answered or not (an open loop).
	Rate float64
	// Once makes every client send one request only.
	Once bool
	// Stagger spreads the clients' first requests, so that streams of one length
	// do not go in step.
	Stagger time.Duration
	// Warm passes before Measure begins. Of a closed loop counts what ends in
	// Measure; of an open one what was due in it, however late it is answered.
	Warm, Measure time.Duration
	// Begin and End are called when Measure begins and ends.
	Begin, End func()
}

// Result is what was measured.
type Result struct {
	Took time.Duration
	// Done is what ended in Measure, LeftDone the clients that left in it,
	// and Deltas what came in it of all streams, also of those that ended later.
	Done, LeftDone, Deltas int64
	// Sent, Failed and Left count everything, also what was outside Measure.
	Sent, Answered, Failed, Left int64
	FirstError                   string
	// TTFB and Whole count from when the request was due, TTFB of a stream without the
	// upstream's own time; Lag is that of deltas and Last that of the end of a stream, both
	// from the upstream.
	TTFB, Whole, Lag, Last Times
}

// Times are latencies, sorted.
type Times []time.Duration

// At is the q-th quantile; 0 when there is nothing.
func (t Times) At(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	return t[min(len(t)-1, int(q*float64(len(t))))]
}

// run is the state of all clients.
type run struct {
	spec  Spec
	start time.Time
	from  time.Time // Measure
	to    time.Time
	next  atomic.Int64

	measuring, stopped atomic.Bool
}

// Run sends until Measure is over and everything is answered.
func Run(s Spec) Result {
	r := &run{spec: s, start: time.Now()}
	r.from = r.start.Add(s.Warm)
	r.to = r.from.Add(s.Measure)
	clients := make([]*client, s.Clients)
	var all sync.WaitGroup
	for i := range clients {
		c := &client{run: r}
		c.conn = conn{addr: s.Addr, each: c.delta}
		clients[i] = c
		all.Go(func() { c.loop(i) })
	}
	time.Sleep(time.Until(r.from))
	begun := time.Now()
	s.Begin()
	r.measuring.Store(true)
	time.Sleep(time.Until(r.to))
	r.measuring.Store(false)
	s.End()
	took := time.Since(begun)
	r.stopped.Store(true)
	all.Wait()
	res := Result{Took: took}
	for _, c := range clients {
		res.add(&c.seen)
	}
	for _, t := range []Times{res.TTFB, res.Whole, res.Lag, res.Last} {
		slices.Sort(t)
	}
	return res
}

// add adds what one client has seen.
func (r *Result) add(o *Result) {
	r.Done, r.Deltas, r.LeftDone = r.Done+o.Done, r.Deltas+o.Deltas, r.LeftDone+o.LeftDone
	r.Sent, r.Answered, r.Failed, r.Left = r.Sent+o.Sent, r.Answered+o.Answered, r.Failed+o.Failed, r.Left+o.Left
	if r.FirstError == "" {
		r.FirstError = o.FirstError
	}
	r.TTFB, r.Whole = append(r.TTFB, o.TTFB...), append(r.Whole, o.Whole...)
	r.Lag, r.Last = append(r.Lag, o.Lag...), append(r.Last, o.Last...)
}

// client is one connection and what it has seen.
type client struct {
	*run
	conn conn
	seen Result
}

func (c *client) loop(i int) {
	defer c.conn.close()
	if c.spec.Rate == 0 {
		c.wait(c.start.Add(c.spec.Stagger * time.Duration(i) / time.Duration(c.spec.Clients)))
	}
	for first := true; first || c.goesOn(); first = false {
		n := c.next.Add(1) - 1
		due := time.Now()
		if c.spec.Rate > 0 {
			due = c.start.Add(time.Duration(float64(n) / c.spec.Rate * float64(time.Second)))
			if due.After(c.to) {
				return
			}
			c.wait(due)
		}
		if c.spec.Rate > 0 && time.Since(c.to) > patience {
			c.note(due, &answer{}, errLate)
			continue
		}
		req := c.spec.Next(n)
		a, err := c.conn.do(&req)
		c.note(due, &a, err)
		if err != nil {
			time.Sleep(time.Millisecond) // an address where nothing listens takes no core
		}
	}
}

// patience is how long after its end the requests of an open loop are still sent
// that were due before; those that nothing took by then have failed.
const patience = 30 * time.Second

var errLate = errors.New("due, but no connection was free for it in time")

// goesOn says whether another request is sent. An open loop sends all that are due.
func (c *client) goesOn() bool {
	return !c.spec.Once && (c.spec.Rate > 0 || !c.stopped.Load())
}

// wait sleeps until an instant. Go's timers may be a millisecond late, so the
// last two are the kernel's when the rate is low enough for it.
func (c *client) wait(until time.Time) {
	const coarse, few = 2 * time.Millisecond, 200
	if c.spec.Rate == 0 || c.spec.Rate > few {
		time.Sleep(time.Until(until))
		return
	}
	time.Sleep(time.Until(until) - coarse)
	for d := time.Until(until); d > 0; d = time.Until(until) {
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // a signal ends it early: the loop goes on
	}
}

// delta counts a delta.
func (c *client) delta() {
	if c.measuring.Load() {
		c.seen.Deltas++
	}
}

func (c *client) note(due time.Time, a *answer, err error) {
	s := &c.seen
	s.Sent++
	switch {
	case err != nil:
		if s.Failed++; s.FirstError == "" {
			s.FirstError = err.Error()
		}
		return
	case a.left:
		s.Left++
		if now := time.Now(); now.After(c.from) && now.Before(c.to) {
			s.LeftDone++
		}
		return
	}
	s.Answered++
	in := func(t time.Time) bool { return !t.Before(c.from) && !t.After(c.to) }
	if in(a.end) {
		s.Done++
	}
	if c.spec.Rate == 0 && !in(a.end) || c.spec.Rate > 0 && !in(due) {
		return
	}
	s.TTFB = append(s.TTFB, a.first.Sub(due)-a.think)
	s.Whole = append(s.Whole, a.end.Sub(due))
	s.Lag = append(s.Lag, a.lags...)
	if a.last != 0 {
		s.Last = append(s.Last, a.last)
	}
}
