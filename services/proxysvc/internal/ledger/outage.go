package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// outage is what happens while Postgres is away.
type outage struct {
	since time.Time     // zero: it is there
	used  money.NanoUSD // of the allowance
	// unwritten is how many batches in a row it did not take, although it could be
	// read after each.
	unwritten int
}

// outageLog is the log of requests that were let in while Postgres was away.
const outageLog = -1

var errAway = fault.Errorf(fault.Unavailable, "the ledger cannot be reached; try again in a few seconds")

// outcome is what became of a batch whose commit failed.
type outcome int

const (
	uncertain outcome = iota // nobody knows: ctx ended first
	committed
	passing // it is not on the ledger; Postgres is there, and the same again may work
	away    // it is not on the ledger, and Postgres was away
)

// ride waits until it is certain whether a batch whose commit failed is on the
// ledger after all. Meanwhile settlements go to the journal, so that their answers
// can end, and admissions are refused at once, or let in within the outage's
// allowance. A fenced log is followed by a new one: what it held in flight is
// settled by whoever fenced it.
func (w *Writer) ride(ctx context.Context, b *Batch) outcome {
	for end := passing; ; end = away {
		log, err, ok := w.readLog(ctx, b)
		if !ok {
			return uncertain
		}
		fenced := errors.Is(err, ErrFenced)
		written := (err == nil || fenced) && log.Batch == b.Number // perhaps just before it was fenced
		if fenced {
			w.seen.Trouble("this log was fenced; a new one is opened", err)
			if log, err = w.store.OpenLog(ctx, w.set.Instance); err == nil {
				w.begin(log)
			}
		}
		switch {
		case err == nil && !fenced && !written && w.outage.unwritten > 0:
			w.log = log
			return end // it takes nothing still
		case err == nil:
			w.log = log
			w.back()
			if written {
				return committed
			}
			return end
		}
		w.seen.Trouble("read the log", err)
		w.outage.unwritten = 0
		w.gone()
		if !w.bide(ctx) {
			return uncertain
		}
	}
}

// readPatience is for how many pauses of Retry Postgres may say nothing before it is
// away: less than an admission waits, and longer than a new connection takes.
const readPatience = 10

// readLog reads the log after a batch that failed. A Postgres that does not answer soon
// is away: what comes is served meanwhile. Not ok: ctx has ended.
func (w *Writer) readLog(ctx context.Context, b *Batch) (log Open, err error, ok bool) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		log, err = w.store.ReadLog(ctx, b.LogID, b.Number)
	}()
	soon := time.NewTimer(readPatience * w.set.Retry)
	defer soon.Stop()
	select {
	case <-read:
		return log, err, true
	case <-soon.C:
		w.gone()
	}
	for {
		select {
		case <-read:
			return log, err, true
		case it := <-w.queue:
			w.without(w.gather([]item{it}))
		case <-w.hurry:
			w.without(nil)
		case <-ctx.Done():
			<-read // it ends with ctx
			return log, err, false
		}
	}
}

// unwritten counts the batches that a Postgres which can be read did not take. Once
// that may pass, as a deadlock does; a second time it is as good as away, its disk
// full perhaps, until it takes something.
func (w *Writer) unwritten(ctx context.Context, end outcome) outcome {
	if w.outage.unwritten++; w.outage.unwritten == 1 {
		return end
	}
	w.gone()
	if !w.bide(ctx) {
		return uncertain
	}
	return away
}

// gone notes that Postgres is away, and back that it is not.
func (w *Writer) gone() {
	if w.outage.since.IsZero() {
		w.outage.since = time.Now()
		for _, hold := range w.lent { // of an outage before, still in flight
			w.outage.used += hold
		}
		w.away.Store(true)
	}
}

func (w *Writer) back() {
	w.outage = outage{}
	w.away.Store(false)
}

// bide serves what comes until it is time to look for Postgres again; false when
// ctx ends first.
func (w *Writer) bide(ctx context.Context) bool {
	retry := time.NewTimer(w.set.Retry)
	defer retry.Stop()
	for {
		select {
		case it := <-w.queue:
			w.without(w.gather([]item{it}))
		case <-w.hurry:
			w.without(nil)
		case <-retry.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// without serves items while Postgres is away, and what waited for company.
func (w *Writer) without(items []item) {
	items = w.take(append(w.idle, items...))
	w.idle = nil
	var keep []item
	for _, it := range items {
		switch {
		case it.admission != nil:
			it.answer(w.letIn(it.admission))
		case it.settlement != nil:
			w.giveBack(it.settlement)
			keep = append(keep, it)
		case it.logID == outageLog:
			w.note(Record{Progress: it.progress})
		}
	}
	w.keep(keep)
	w.pending = append(w.pending, keep...)
}

// letIn admits a request while Postgres is away, if the outage's allowance bears
// its worst case. It is on the disk before it is let in.
func (w *Writer) letIn(a *Admission) result {
	o := &w.outage
	if time.Since(o.since) >= w.set.OutageWindow || o.used+a.Hold > w.set.OutageAllowance || !w.note(Record{Admission: a}) {
		return result{err: errAway}
	}
	o.used += a.Hold
	w.lent[a.RequestID] = a.Hold
	return result{logID: outageLog}
}

// giveBack replaces the hold of a request that was let in by its cost.
func (w *Writer) giveBack(s *Settlement) {
	if hold, ok := w.lent[s.RequestID]; ok {
		delete(w.lent, s.RequestID)
		w.outage.used += s.Cost - hold
	}
}

// keep puts settlements into the journal and tells their callers. Where there is
// no journal, or its disk is full, they wait for Postgres.
func (w *Writer) keep(items []item) {
	var records []Record
	for _, it := range items {
		if it.settlement != nil && !it.answered && !it.estimate {
			records = append(records, Record{Settlement: it.settlement})
		}
	}
	if len(records) == 0 || !w.note(records...) {
		return
	}
	for i := range items {
		if items[i].settlement != nil {
			items[i].answer(result{})
		}
	}
}

// note appends to the journal and says whether that worked.
func (w *Writer) note(records ...Record) bool {
	if w.journal == nil {
		return false
	}
	for i := range records {
		records[i].By = w.set.Instance
	}
	if err := w.journal.Append(records...); err != nil {
		w.seen.Trouble("write the journal", err)
		return false
	}
	w.journaled = true
	return true
}

// forget empties the journal when all of it is on the ledger.
func (w *Writer) forget() {
	if !w.journaled || w.stuck || len(w.pending)+len(w.strays)+len(w.waiting)+len(w.lent) > 0 {
		return
	}
	if err := w.journal.Forget(); err != nil {
		w.seen.Trouble("empty the journal", err)
		return
	}
	w.journaled = false
}
