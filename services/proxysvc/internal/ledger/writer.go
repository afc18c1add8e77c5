package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Settings of a Writer.
type Settings struct {
	Instance string // who writes, for people: host and process
	// Heartbeat is how often an idle log shows that its process lives.
	Heartbeat time.Duration
	// Silence is how long a log may show no life before others settle its
	// requests. It must be several heartbeats.
	Silence time.Duration
	// Retry is the pause after a failed transaction.
	Retry time.Duration
	// AdmitTimeout is how long an admission waits before it is refused with
	// Unavailable.
	AdmitTimeout time.Duration
}

// maxBatch bounds a transaction, so that encoding it never holds a core for
// long and a refused statement repeats little.
const maxBatch = 100

// Observer is told what the writer does, for logs and metrics.
type Observer interface {
	// Committed is called after each transaction with its size.
	Committed(settlements, admissions int, took time.Duration)
	// Trouble is called when a transaction failed and will be tried again, when
	// the log was fenced, or when requests of a dead replica were settled.
	Trouble(what string, err error)
}

// Writer is the only writer of this process's log. It commits whatever queued
// up while its last transaction ran as one (natural group commit: no timers, no
// waiting for company).
type Writer struct {
	store Store
	set   Settings
	seen  Observer
	queue chan item

	log   Open
	known map[AccountID]bool // accounts whose shared row exists for certain
	ready chan struct{}
	done  chan struct{}
	once  sync.Once
	stop  chan struct{}
}

// item is one thing to write and where to tell the outcome.
type item struct {
	admission  *Admission
	settlement *Settlement
	progress   *Progress
	logID      int64 // of the admission that a settlement or progress belongs to
	result     chan result
}

type result struct {
	logID int64
	err   error
}

// Ticket is an admitted request: the right, and the duty, to settle it.
type Ticket struct {
	w         *Writer
	logID     int64
	admission Admission
}

// NewWriter makes a writer; call Run once to make it work.
func NewWriter(store Store, set Settings, seen Observer) *Writer {
	return &Writer{
		store: store, set: set, seen: seen, queue: make(chan item, 4*maxBatch),
		known: map[AccountID]bool{}, ready: make(chan struct{}), done: make(chan struct{}), stop: make(chan struct{}),
	}
}

// Admit puts the request on the ledger, or returns a *Refusal, or Unavailable
// when that could not be decided in time. If ctx ends first, the request is
// settled at no cost in case it was admitted after all: then nothing of its
// answer has been passed on.
func (w *Writer) Admit(ctx context.Context, a *Admission) (*Ticket, error) {
	timer := time.NewTimer(w.set.AdmitTimeout)
	defer timer.Stop()
	it := item{admission: a, result: make(chan result, 1)}
	select {
	case w.queue <- it:
	case <-timer.C:
		return nil, errBusy
	case <-w.stop:
		return nil, errStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case r := <-it.result:
		if r.err != nil {
			return nil, r.err
		}
		return &Ticket{w: w, logID: r.logID, admission: *a}, nil
	case <-timer.C:
		go w.withdraw(context.WithoutCancel(ctx), it) // the caller gives up, the ledger does not
		return nil, errBusy
	case <-ctx.Done():
		go w.withdraw(context.WithoutCancel(ctx), it) // the caller gives up, the ledger does not
		return nil, ctx.Err()
	}
}

var (
	errBusy    = fault.Errorf(fault.Unavailable, "the ledger cannot be written now; try again in a few seconds")
	errStopped = fault.Errorf(fault.Unavailable, "this replica is shutting down; try again")
)

// withdraw settles an admission that nobody waited for. If the writer ends
// first, whoever takes the log over settles it.
func (w *Writer) withdraw(ctx context.Context, it item) {
	select {
	case r := <-it.result:
		if r.err != nil {
			return
		}
		t := &Ticket{w: w, logID: r.logID, admission: *it.admission}
		s := &Settlement{Request: it.admission.Request, Status: Aborted, EndedAt: it.admission.StartedAt}
		if err := t.Settle(ctx, s); err != nil {
			w.seen.Trouble("withdraw an admission", err)
		}
	case <-w.done:
	}
}

// Progress notes what the request has used so far. It does not wait.
func (t *Ticket) Progress(p *Progress) {
	p.RequestID = t.admission.RequestID
	select {
	case t.w.queue <- item{progress: p, logID: t.logID}:
	default: // the queue is full: newer progress follows
	}
}

// Settle puts the end of the request on the ledger and returns when it is
// committed; while Postgres is away it waits. It fails only when ctx or the
// writer ends; then the request stays open and another replica settles it from
// its progress.
func (t *Ticket) Settle(ctx context.Context, s *Settlement) error {
	s.Hold = t.admission.Hold
	it := item{settlement: s, logID: t.logID, result: make(chan result, 1)}
	select {
	case t.w.queue <- it:
	case <-t.w.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case r := <-it.result:
		return r.err
	case <-t.w.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ready is closed when the first log has been opened.
func (w *Writer) Ready() <-chan struct{} { return w.ready }

// Done is closed when Run has returned.
func (w *Writer) Done() <-chan struct{} { return w.done }

// Stop makes Run write what is queued, close the log and return. No request may
// be running any more.
func (w *Writer) Stop() { w.once.Do(func() { close(w.stop) }) }

// Run opens the log and writes until Stop or ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	defer close(w.done)
	if err := w.open(ctx); err != nil {
		return err
	}
	close(w.ready)
	beat := time.NewTicker(w.set.Heartbeat)
	defer beat.Stop()
	for {
		var first []item
		select {
		case it := <-w.queue:
			first = []item{it}
		case <-beat.C:
			w.watch(ctx)
		case <-w.stop:
			for len(w.queue) > 0 {
				w.write(ctx, w.gather(nil))
			}
			return w.store.CloseLog(ctx, w.log.LogID)
		case <-ctx.Done():
			return nil
		}
		w.write(ctx, w.gather(first))
	}
}

// open starts a log, however long Postgres is away.
func (w *Writer) open(ctx context.Context) error {
	for {
		log, err := w.store.OpenLog(ctx, w.set.Instance)
		if err == nil {
			w.log = log
			return nil
		}
		w.seen.Trouble("open a log", err)
		if !pause(ctx, w.set.Retry) {
			return fmt.Errorf("open a log: %w", ctx.Err())
		}
	}
}

// gather takes what is queued by now, up to the size of a batch.
func (w *Writer) gather(items []item) []item {
	for len(items) < maxBatch {
		select {
		case it := <-w.queue:
			items = append(items, it)
		default:
			return items
		}
	}
	return items
}

// watch runs once a heartbeat: it looks for dead replicas and settles their
// requests.
func (w *Writer) watch(ctx context.Context) {
	orphans, err := w.store.TakeOver(ctx, w.log.LogID, w.set.Silence)
	if err != nil {
		if !errors.Is(err, ErrFenced) {
			w.seen.Trouble("look for dead replicas", err)
		}
		return
	}
	for len(orphans) > 0 {
		n := min(len(orphans), maxBatch)
		items := make([]item, 0, n)
		for _, s := range orphans[:n] {
			items = append(items, item{settlement: s, logID: w.log.LogID, result: make(chan result, 1)})
		}
		w.write(ctx, items)
		w.seen.Trouble(fmt.Sprintf("settled %d requests of dead replicas", n), nil)
		orphans = orphans[n:]
	}
	if err := w.store.CloseLogs(ctx, w.log.LogID); err != nil {
		w.seen.Trouble("close the logs of dead replicas", err)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
