package ledger

import "sync/atomic"

// Intended is a request that goes to its upstream beside its admission, as it is
// held in the journal until the admission is decided: should the process be killed
// in between, the next one finds it.
type Intended struct {
	By        string // the instance
	Admission *Admission
}

// Intent is an intended request of this process.
type Intent struct {
	journal  Journal
	intended Intended // what the slot holds
	slot     int
	dropped  atomic.Bool
}

// Intend notes a request whose upstream is called before its admission is decided;
// nil when that cannot be noted, so that it must be admitted first.
func (w *Writer) Intend(a *Admission) *Intent {
	if w.journal == nil {
		return nil
	}
	i := &Intent{journal: w.journal, intended: Intended{By: w.set.Instance, Admission: a}}
	var ok bool
	if i.slot, ok = w.journal.Hold(Record{Intended: &i.intended}); !ok {
		return nil
	}
	return i
}

// Drop forgets the intent: the request is on the ledger, or nothing is owed for it.
// It may be called twice, and on nil.
func (i *Intent) Drop() {
	if i != nil && i.dropped.CompareAndSwap(false, true) {
		i.journal.Release(i.slot)
	}
}
