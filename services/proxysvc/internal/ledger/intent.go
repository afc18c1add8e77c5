package ledger

import "sync/atomic"

// intent is a request of this process that is held in the journal.
type intent struct {
	journal Journal
	slot    int
	dropped atomic.Bool
}

// intend holds an admission in the journal; nil when it cannot.
func (w *Writer) intend(a *Admission) *intent {
	if w.journal == nil {
		return nil
	}
	slot, ok := w.journal.Hold(Record{By: w.set.Instance, Intended: a})
	if !ok {
		return nil
	}
	return &intent{journal: w.journal, slot: slot}
}

// Drop forgets the intent: the request is on the ledger, or nothing is owed for it.
// It may be called twice, and on nil.
func (i *intent) Drop() {
	if i != nil && i.dropped.CompareAndSwap(false, true) {
		i.journal.Release(i.slot)
	}
}
