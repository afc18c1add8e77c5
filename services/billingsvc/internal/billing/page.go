package billing

import (
	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Page is a run of one log's rows, as the ledger gave it.
type Page struct {
	LogID    int64
	AfterSeq int64 // where the reading began
	Rows     []Row
	LastSeq  int64 // newest row of the log when it was read
	Closed   bool  // nothing will be added after LastSeq
}

// EndSeq is where the next page begins.
func (p Page) EndSeq() int64 { return p.AfterSeq + int64(len(p.Rows)) }

// Drained says that the page ends its log for ever.
func (p Page) Drained() bool { return p.Closed && p.EndSeq() == p.LastSeq }

// Check refuses a page with a hole: its rows must follow the cursor one by one,
// and there must be some while the log has more.
func (p Page) Check() error {
	for i, r := range p.Rows {
		want := p.AfterSeq + 1 + int64(i)
		if r.LogID != p.LogID || r.Seq != want {
			return fault.Errorf(fault.DataLoss, "log %d: row %d is missing, the ledger gave row %d of log %d instead", p.LogID, want, r.Seq, r.LogID)
		}
	}
	if p.EndSeq() > p.LastSeq {
		return fault.Errorf(fault.DataLoss, "log %d ends at row %d, but row %d was billed or read", p.LogID, p.LastSeq, p.EndSeq())
	}
	if len(p.Rows) == 0 && p.AfterSeq < p.LastSeq {
		return fault.Errorf(fault.DataLoss, "log %d: rows %d to %d are missing", p.LogID, p.AfterSeq+1, p.LastSeq)
	}
	return nil
}

// Draft is what a page comes to before the balances of its teams are known.
type Draft struct {
	Page        Page // empty: the events are not from the ledger
	Events      []Event
	Quarantined []Quarantined
	// Deferred leaves the events to the next sync to be frozen.
	Deferred bool
}
