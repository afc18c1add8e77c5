package ledger

import "sync/atomic"

// Intended is a request that goes to its upstream beside its admission, as it is
// held in the journal until the admission is decided: should the process be killed
// in between, the next one finds it.
type Intended struct {
	By        string // the instance
	Admission *Admission
}

// intent is an intended request of this process.
type intent struct {
	journal  Journal
	intended Intended // what the slot holds
	slot     int
	dropped  atomic.Bool
}

// intend holds an admission in the journal; nil when it cannot.
func (w *Writer) intend(a *Admission) *intent {
	if w.journal == nil {
		return nil
	}
	i := &intent{journal: w.journal, intended: Intended{By: w.set.Instance, Admission: a}}
	var ok bool
	if i.slot, ok = w.journal.Hold(Record{Intended: &i.intended}); !ok {
		return nil
	}
	return i
}

// Drop forgets the intent: the request is on the ledger, or nothing is owed for it.
// It may be called twice, and on nil.
func (i *intent) Drop() {
	if i != nil && i.dropped.CompareAndSwap(false, true) {
		i.journal.Release(i.slot)
	}
}
