package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Settings of a Writer.
type Settings struct {
	// Instance is who writes, in words for people; no other process is ever called
	// the same.
	Instance string
	// Heartbeat is how often an idle log shows that its process lives.
	Heartbeat time.Duration
	// Silence is how long a log may show no life before others settle its
	// requests. It must be several heartbeats.
	Silence time.Duration
	// Company is for how long what nobody waits for yet waits for something else to be
	// written with: progress, and the admission of a request whose upstream has not
	// answered. The heartbeat takes it along too.
	Company time.Duration
	// Gather is for how long the writer waits for more when its last transaction wrote much;
	// if it wrote a few, half as long. Unless it wrote very many, it waits no longer than
	// until as many press again. One transaction for all costs less.
	Gather time.Duration
	// BudgetSlice is for how long a slice of a budget is kept, so that requests are admitted
	// without asking Postgres; 0: there are none.
	BudgetSlice time.Duration
	// Retry is the pause after a failed transaction.
	Retry time.Duration
	// AbandonedHold is for how long the rest of a hold stays after a replica was
	// taken for dead and its request was settled by an estimate: it may only be
	// frozen. 0: not at all.
	AbandonedHold time.Duration
	// AdmitTimeout is how long an admission waits before it is refused with
	// Unavailable.
	AdmitTimeout time.Duration
	// OutageAllowance is how much requests that are let in while Postgres is away
	// may cost, and OutageWindow for how long they are; 0: none is.
	OutageAllowance money.NanoUSD
	OutageWindow    time.Duration
}

// Record is one entry of the journal: By, and one other field.
type Record struct {
	By         string      `json:"by,omitempty"` // the instance that left it
	Admission  *Admission  `json:"admission,omitempty"`
	Progress   *Progress   `json:"progress,omitempty"`
	Settlement *Settlement `json:"settlement,omitempty"`
	// Intended is a request that goes to its upstream beside its admission, held until
	// that is decided: should the process be killed in between, the next one finds it.
	Intended *Admission `json:"intended,omitempty"`
}

// Journal keeps records on this machine's disk while they are not in Postgres. The
// writer's goroutine alone calls Append and Forget.
type Journal interface {
	// Append returns when the records are on the disk, or with an error when they
	// are not.
	Append(records ...Record) error
	// Forget drops what was appended, and all that processes before left: it is on
	// the ledger.
	Forget() error
	// Hold keeps a record until Release, in case this process is killed; not ok:
	// it cannot.
	Hold(Record) (slot int, ok bool)
	Release(slot int)
}

// maxBatch bounds a transaction, so that encoding it never holds a core for
// long and a refused statement repeats little.
const maxBatch = 100

// From how many items on a transaction wrote a few, much, and so many that to count each as
// it comes costs more than it is worth.
const (
	fewAtOnce  = 3
	muchAtOnce = 12
	manyAtOnce = 32
)

// Observer is told what the writer does, for logs and metrics.
type Observer interface {
	// Committed is called after each transaction with its size.
	Committed(settlements, admissions int, took time.Duration)
	// Trouble is called when a transaction failed and will be tried again, when
	// the log was fenced, or when requests of a dead replica were settled.
	Trouble(what string, err error)
}

// Writer is the only writer of this process's log. It commits whatever queued
// up while its last transaction ran as one (natural group commit), and a little later
// where more is likely to come.
type Writer struct {
	store   Store
	journal Journal
	set     Settings
	seen    Observer
	queue   chan item

	log    Open
	slicer *slicer
	// expected is how many items are likely to press soon: those that the last transaction
	// wrote, whose callers come back, and those that came meanwhile. 0: who knows.
	expected int
	// idle is what waits for company, until due, and then is all written; hurry says that
	// somebody waits for a part of it now.
	idle  []item
	due   <-chan time.Time
	all   bool
	hurry chan struct{}
	// pending are settlements that wait for Postgres, in order; strays those whose
	// log is not, or no longer, this one, and waiting those of them that were looked
	// at and come again with the heartbeat.
	pending, strays, waiting []item

	journaled bool // the journal holds something
	stuck     bool // … that Postgres refuses, for a person to look at
	// lent are the holds of requests in flight that were let in while Postgres was
	// away, by id.
	lent   map[string]money.NanoUSD
	outage outage
	away   atomic.Bool
	known  map[AccountID][]string // accounts, and windows of them, whose shared rows exist for certain
	ready  chan struct{}
	done   chan struct{}
	once   sync.Once
	stop   chan struct{}
}

// item is one thing to write and where to tell the outcome.
type item struct {
	admission  *Admission
	settlement *Settlement
	progress   *Progress
	logID      int64 // of the admission that a settlement or progress belongs to
	result     chan result
	answered   bool // it is safe in the journal, and its caller knows
	// estimate says that the settlement is what was last seen of a dead replica's
	// request: it never replaces what is known, so it does not outlive its log.
	estimate bool
	// writer is the process that left it in the journal, and that may have put it on
	// the ledger, or do so yet; empty: this one.
	writer string
	ticket *Ticket // of a request that was begun, or nil
	ask    bool    // a settlement that asks what its key has spent
}

// answer tells the item's outcome, once.
func (it *item) answer(r result) {
	if it.result == nil || it.answered {
		return
	}
	it.answered = true
	if it.ticket != nil && r.err == nil {
		it.ticket.intent.Drop()
	}
	it.result <- r
}

type result struct {
	logID    int64
	standing Standing
	err      error
}

// NewWriter makes a writer; call Run once to make it work. Records are what an
// earlier process left in the journal: they are settled first.
func NewWriter(store Store, journal Journal, records []Record, set Settings, seen Observer) *Writer {
	strays := left(records, time.Now())
	return &Writer{
		store: store, journal: journal, slicer: newSlicer(set.BudgetSlice), strays: strays, journaled: len(records) > 0, set: set, seen: seen, queue: make(chan item, 4*maxBatch),
		hurry: make(chan struct{}, 1), known: map[AccountID][]string{}, lent: map[string]money.NanoUSD{}, ready: make(chan struct{}), done: make(chan struct{}), stop: make(chan struct{}),
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
		if ctx.Err() != nil {
			return nil // what is in the journal stays there
		}
		if len(w.pending) > 0 {
			n := min(len(w.pending), maxBatch/2) // beside what is asked now
			first := w.pending[:n:n]
			w.pending = w.pending[n:]
			w.write(ctx, w.take(w.gather(first)))
			continue
		}
		if len(w.strays) > 0 {
			w.resolve(ctx)
			continue
		}
		w.forget()
		beats := false
		select {
		case it := <-w.queue:
			if w.expected >= manyAtOnce {
				pause(ctx, w.set.Gather)
			}
			if first := w.gather([]item{it}); w.defers(first) {
				continue
			}
			w.linger(ctx)
		case <-w.hurry:
			w.linger(ctx)
		case <-beat.C:
			w.watch(ctx)
			beats = true
		case <-w.due:
			w.all = true
		case <-w.stop:
			w.all = true
			if len(w.queue) == 0 && len(w.waiting)+len(w.idle) == 0 {
				return w.close(ctx)
			}
			if len(w.queue)+len(w.idle) == 0 && !pause(ctx, w.set.Retry) { // the strays wait for their settlers
				return nil
			}
			w.again()
		case <-ctx.Done():
			return nil
		}
		if items := w.gather(w.company()); len(items) > 0 || beats {
			w.write(ctx, w.take(items))
		}
	}
}

// expect looks, when a transaction has ended and nobody knows yet, how many will press
// soon.
func (w *Writer) expect(wrote []item) {
	come := 0
	for _, it := range wrote {
		if it.progress == nil {
			come++
		}
	}
	if come < fewAtOnce || len(w.pending)+len(w.strays) > 0 { // those take along what is queued
		return
	}
	if more := w.gather(nil); len(more) > 0 && !w.defers(more) {
		w.nudge()
	}
	w.expected = come + pressing(w.idle)
}

// linger waits a little until as many press as are expected.
func (w *Writer) linger(ctx context.Context) {
	if w.expected == 0 || w.expected >= manyAtOnce {
		return
	}
	most := w.set.Gather
	if w.expected < muchAtOnce {
		most /= 2
	}
	end := time.NewTimer(most)
	defer end.Stop()
	for pressing(w.idle) < w.expected {
		select {
		case it := <-w.queue:
			w.idle = append(w.idle, it)
		case <-w.hurry:
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// pressing is how many items press.
func pressing(items []item) (n int) {
	for _, it := range items {
		if it.presses() {
			n++
		}
	}
	return n
}

// nudge has the writer look at what presses.
func (w *Writer) nudge() {
	select {
	case w.hurry <- struct{}{}:
	default: // it was told, and looks at all that waits
	}
}

// defers has items wait for company, and says whether all of those that wait may.
func (w *Writer) defers(items []item) bool {
	w.idle = append(w.idle, items...)
	if slices.ContainsFunc(items, item.presses) {
		return false
	}
	if w.due == nil {
		w.due = time.After(w.set.Company)
	}
	return true
}

// company is what is written now of what waits, a batch at most: all of it when it is due
// or much, else what presses, and what would be written by itself in any case. A request
// that is not streamed may end soon, and is one row then.
func (w *Writer) company() []item {
	w.all = w.all || len(w.idle) > maxBatch
	var now, later []item
	for _, it := range w.idle {
		if len(now) < maxBatch && (w.all || it.presses() || it.admission == nil || it.admission.Stream) {
			now = append(now, it)
		} else {
			later = append(later, it)
		}
	}
	switch w.idle = later; {
	case len(later) == 0:
		w.due = nil
	case w.all: // the rest of it is due, too
		w.due = time.After(0)
	case w.due == nil:
		w.due = time.After(w.set.Company)
	}
	w.all = false
	return now
}

// presses says whether somebody waits for the item, or it is more than a note.
func (it item) presses() bool {
	switch {
	case it.progress != nil:
		return false
	case it.admission != nil && it.ticket != nil:
		return it.ticket.hurried.Load() || it.ticket.end.Load() != nil
	}
	return true
}

// open starts a log, however long Postgres is away.
func (w *Writer) open(ctx context.Context) error {
	for {
		log, err := w.store.OpenLog(ctx, w.set.Instance)
		if err == nil {
			w.begin(log)
			return nil
		}
		w.seen.Trouble("open a log", err)
		if !pause(ctx, w.set.Retry) {
			return fmt.Errorf("open a log: %w", ctx.Err())
		}
	}
}

// begin goes on in a log that was opened.
func (w *Writer) begin(log Open) {
	w.log = log
	w.slicer.begin(log.LogID)
}

// close closes the log, however long Postgres is away; if ctx ends first, another
// replica does it.
func (w *Writer) close(ctx context.Context) error {
	for {
		err := w.store.CloseLog(ctx, w.log.LogID)
		if err == nil {
			return nil
		}
		w.seen.Trouble("close the log", err)
		if !pause(ctx, w.set.Retry) {
			return fmt.Errorf("close the log: %w", err)
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

// watch runs once a heartbeat: it tells of slices that are over, looks for dead replicas
// and settles their requests.
func (w *Writer) watch(ctx context.Context) {
	w.again()
	for n := w.slicer.over(); n > 0; n -= maxBatch {
		w.write(ctx, nil)
	}
	orphans, err := w.store.TakeOver(ctx, w.log.LogID, w.set.Silence)
	if err != nil {
		if !errors.Is(err, ErrFenced) {
			w.seen.Trouble("look for dead replicas", err)
		}
		return
	}
	items := w.adopt(orphans)
	for len(items) > 0 {
		n := min(len(items), maxBatch)
		w.write(ctx, items[:n:n])
		w.seen.Trouble(fmt.Sprintf("settled %d requests of dead replicas", n), nil)
		items = items[n:]
	}
	if err := w.store.FreeResiduals(ctx); err != nil {
		w.seen.Trouble("free what was held for dead replicas", err)
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
