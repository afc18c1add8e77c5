package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Found is what the ledger has of a request.
type Found struct {
	Open bool // it is still in flight there: its log's settler will settle it
	// Rows is how many rows it has, its adjustments included; Usage and Cost are
	// their sums.
	Rows  int
	Usage pricing.Usage
	Cost  money.NanoUSD
}

// sift takes out what does not belong to this log: settlements of requests whose
// log another replica took for dead, or that were let in while Postgres was away,
// become strays. They are safe in the journal first, if there is one.
func (w *Writer) sift(items []item) []item {
	if !slices.ContainsFunc(items, w.foreign) {
		return items
	}
	var strays, rest []item
	for _, it := range items {
		switch {
		case !w.foreign(it):
			rest = append(rest, it)
		case it.settlement != nil && it.estimate:
			// Whoever inherits the request sees it on the ledger, as we did.
		case it.settlement != nil:
			w.giveBack(it.settlement)
			strays = append(strays, it)
		case it.logID == outageLog:
			w.note(Record{Progress: it.progress})
		}
	}
	w.keep(strays)
	w.strays = append(w.strays, strays...)
	return rest
}

// foreign says whether an item does not belong to this log.
func (w *Writer) foreign(it item) bool { return it.admission == nil && it.logID != w.log.LogID }

// adopt makes items of dead replicas' requests. What a stray knows of one is what
// is settled; otherwise it is what was last seen.
func (w *Writer) adopt(orphans []*Settlement) []item {
	items := make([]item, 0, len(orphans))
	for _, orphan := range orphans {
		it := item{settlement: orphan, logID: w.log.LogID, estimate: true}
		if w.set.AbandonedHold > 0 {
			orphan.Keep = max(0, orphan.Hold-orphan.Cost)
		}
		for _, strays := range []*[]item{&w.strays, &w.waiting} {
			at := slices.IndexFunc(*strays, func(it item) bool {
				return it.answered && !it.estimate && it.settlement.RequestID == orphan.RequestID
			})
			if at >= 0 {
				known := *(*strays)[at].settlement
				known.Hold, known.Tokens, known.Unadmitted = orphan.Hold, orphan.Tokens, false
				it = item{settlement: &known, logID: w.log.LogID, answered: true}
				*strays = slices.Delete(*strays, at, at+1)
			}
		}
		items = append(items, it)
	}
	return items
}

// again has the strays that wait looked at once more.
func (w *Writer) again() { w.strays, w.waiting = append(w.strays, w.waiting...), nil }

// resolve settles the first strays by what the ledger has of them: a request that it
// does not know gets its row, one that was settled by another gets a row with the
// differences, and one that is still open there waits for its settler. What another
// process left is missing for certain only when that one can write no more: its last
// batch may be on its way. Of a request that was only intended, what the ledger has is
// better.
func (w *Writer) resolve(ctx context.Context) {
	n := min(len(w.strays), maxBatch)
	rest, ok := w.settleStrays(ctx, w.strays[:n:n])
	if !ok {
		rest, n = w.strays, len(w.strays) // none can be settled now
	}
	w.strays, w.waiting = w.strays[n:], append(w.waiting, rest...)
}

// settleStrays has those settled that can be, and returns the rest. Not ok: Postgres or
// the journal does not work, and nothing was done.
func (w *Writer) settleStrays(ctx context.Context, strays []item) (rest []item, ok bool) {
	ids := make([]string, 0, len(strays))
	var writers []string
	for _, it := range strays {
		ids = append(ids, it.settlement.RequestID)
		if it.writer != "" {
			writers = append(writers, it.writer)
		}
	}
	var writing map[string]bool
	if len(writers) > 0 {
		var err error
		if writing, err = w.store.Writing(ctx, writers); err != nil {
			w.seen.Trouble("look for the processes of stray requests", err)
			return nil, false
		}
	}
	found, err := w.store.Find(ctx, ids)
	if err != nil {
		w.seen.Trouble("look for stray requests", err)
		return nil, false
	}
	var known, items []item
	var ours []Record
	for _, it := range strays {
		f := found[it.settlement.RequestID]
		s := it.settlement
		missing := s
		if f.Rows > 0 {
			missing = adjustment(s, f, time.Now())
		}
		switch {
		case it.estimate && (f.Open || f.Rows > 0):
			continue
		case !f.Open && missing == nil:
			known = append(known, it)
			continue
		case f.Open, writing[it.writer]:
			rest = append(rest, it)
			continue
		}
		if it.writer != "" {
			ours = append(ours, it.record())
		}
		if it.settlement = missing; f.Rows == 0 {
			s.Unadmitted = true
		}
		it.logID, it.estimate = w.log.LogID, false // nobody else knows of it
		items = append(items, it)
	}
	// From now on it is this process that may have written them.
	if len(ours) > 0 && !w.note(ours...) {
		return nil, false
	}
	for i := range known {
		known[i].answer(result{})
	}
	if len(items) > 0 {
		w.seen.Trouble(fmt.Sprintf("settled %d stray requests", len(items)), nil)
		w.pending = append(w.pending, items...)
	}
	return rest, true
}

// record is what the journal has of a settlement that another process left.
func (it item) record() Record {
	if s := it.settlement; it.estimate {
		return Record{Intended: &Admission{Request: s.Request, Hold: s.Hold, Tokens: s.Tokens}}
	}
	return Record{Settlement: it.settlement}
}

// adjustment is the row that corrects what the ledger has of a request to what
// was really used; nil when it is right already.
func adjustment(s *Settlement, f Found, now time.Time) *Settlement {
	u := s.Usage
	delta := pricing.Usage{
		InputTokens: u.InputTokens - f.Usage.InputTokens, OutputTokens: u.OutputTokens - f.Usage.OutputTokens,
		CacheReadTokens: u.CacheReadTokens - f.Usage.CacheReadTokens, CacheWrite5mTokens: u.CacheWrite5mTokens - f.Usage.CacheWrite5mTokens,
		CacheWrite1hTokens: u.CacheWrite1hTokens - f.Usage.CacheWrite1hTokens, WebSearchRequests: u.WebSearchRequests - f.Usage.WebSearchRequests,
	}
	if delta == (pricing.Usage{}) && s.Cost == f.Cost {
		return nil
	}
	delta.Speed, delta.InferenceGeo, delta.ServiceTier = u.Speed, u.InferenceGeo, u.ServiceTier
	a := *s
	a.Adjusts = s.RequestID
	a.RequestID = fmt.Sprintf("%s.adj%d", s.RequestID, f.Rows)
	a.Usage, a.Cost, a.Breakdown = delta, s.Cost-f.Cost, nil
	a.Status, a.Thread, a.EndedAt = Adjusted, nil, now
	a.in = inSlices{} // its own row has ended it there
	return &a
}

// left makes settlements of what an earlier process left in its journal: of each
// request the last word.
func left(records []Record, now time.Time) []item {
	var order []string
	last, writers, intended := map[string]*Settlement{}, map[string]string{}, map[string]bool{}
	begin := func(a *Admission) {
		if last[a.RequestID] == nil {
			order = append(order, a.RequestID)
		}
		last[a.RequestID] = &Settlement{Request: a.Request, Hold: a.Hold, Tokens: a.Tokens, Status: Abandoned, Estimated: true, EndedAt: now}
	}
	for _, r := range records {
		id := ""
		switch {
		case r.Intended != nil:
			id = r.Intended.RequestID
			begin(r.Intended)
			intended[id] = true
		case r.Admission != nil:
			id = r.Admission.RequestID
			begin(r.Admission)
			delete(intended, id)
		case r.Progress != nil:
			if s := last[r.Progress.RequestID]; s != nil && s.Status == Abandoned {
				s.MessageID, s.Usage, s.Cost = r.Progress.MessageID, r.Progress.Usage, r.Progress.Cost
			}
			continue
		case r.Settlement != nil:
			id = r.Settlement.RequestID
			if last[id] == nil {
				order = append(order, id)
			}
			last[id] = r.Settlement
			delete(intended, id)
		}
		writers[id] = r.By
	}
	items := make([]item, 0, len(order))
	for _, id := range order {
		items = append(items, item{settlement: last[id], answered: true, estimate: intended[id], writer: writers[id]})
	}
	return items
}
