package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// write commits the items as one batch and tells each its outcome. An empty batch
// is a heartbeat. While Postgres is away it rides out the outage; what is left
// to write then is in pending. An item that Postgres refuses for what it holds is
// found by halving the batch, and fails alone.
func (w *Writer) write(ctx context.Context, items []item) {
	start := time.Now()
	items = w.sift(items)
	w.expected = 0
	b, decisions := w.batch(items)
	err := w.commit(ctx, b)
	if err == nil {
		w.log.Batch, w.log.LastSeq = b.Number, b.FirstSeq+int64(len(b.Settlements))-1
		if len(b.Settlements)+len(b.Admissions) > 0 {
			w.back() // a heartbeat may work where rows do not
		}
		w.slicer.written(b)
		w.expect(items)
		w.answer(items, b, decisions)
		w.seen.Committed(len(b.Settlements), len(b.Admissions), time.Since(start))
		return
	}
	w.seen.Trouble("commit a batch", err)
	refused := fault.KindOf(err) != fault.Unavailable && !errors.Is(err, ErrFenced)
	if !refused {
		w.keep(items)
	}
	end := w.ride(ctx, b)
	if !refused && (end == passing || end == away) {
		end = w.unwritten(ctx, end)
	}
	if end == committed {
		w.slicer.written(b)
	} else {
		w.slicer.failed(b)
	}
	switch {
	case end == uncertain:
		fail(items, errStopped)
	case end == committed:
		w.answer(items, b, decisions)
	case refused:
		w.halve(ctx, items, err)
	case end == passing:
		w.pending = append(items, w.pending...)
	default:
		w.pending = append(w.turnAway(items), w.pending...)
	}
}

// halve writes the halves of a batch that was refused; of a single item that is
// the end.
func (w *Writer) halve(ctx context.Context, items []item, err error) {
	if len(items) < 2 {
		w.seen.Trouble("an item cannot be written", err)
		w.stuck = w.stuck || len(items) == 1 && items[0].settlement != nil && items[0].answered
		fail(items, err)
		return
	}
	w.write(ctx, items[:len(items)/2])
	w.write(ctx, items[len(items)/2:])
}

// decision is what became of an admission.
type decision struct {
	refusal  *Refusal
	standing Standing
}

// batch builds the transaction. The decisions fill up when the store calls
// Decide.
func (w *Writer) batch(items []item) (*Batch, map[*Admission]decision) {
	b := &Batch{KeepFor: w.set.AbandonedHold, LogID: w.log.LogID, Number: w.log.Batch + 1, FirstSeq: w.log.LastSeq + 1}
	for _, it := range items {
		switch {
		case it.admission != nil:
			b.Admissions = append(b.Admissions, it.admission)
			if it.admission.AskSpent {
				b.Ask = append(b.Ask, it.admission.KeyID)
			}
		case it.settlement != nil:
			b.Settlements = append(b.Settlements, it.settlement)
			if it.ask {
				b.Ask = append(b.Ask, it.settlement.KeyID)
			}
		case it.progress != nil:
			b.Progress = append(b.Progress, it.progress)
		}
	}
	decisions := make(map[*Admission]decision, len(b.Admissions))
	b.Decide = func(accounts map[AccountID]*Account, now time.Time) []*Admission {
		return w.slicer.decide(b, accounts, now, func(a *Admission, r *Refusal, s Standing) { decisions[a] = decision{r, s} })
	}
	w.slicer.prepare(b)
	return b, decisions
}

// maxKnown bounds the memory of accounts that have a shared row.
const maxKnown = 100_000

// commit makes sure that every limited account of the batch has its shared rows,
// and has the store write it.
func (w *Writer) commit(ctx context.Context, b *Batch) error {
	var fresh []Claim
	for _, a := range b.Admissions {
		if a.granted {
			continue
		}
		for _, c := range a.Claims {
			if !w.knows(c) {
				fresh = append(fresh, c)
			}
		}
	}
	if len(fresh) > 0 {
		if err := w.store.EnsureAccounts(ctx, fresh); err != nil {
			return err
		}
		if len(w.known) > maxKnown {
			clear(w.known) // they are only asked for once more
		}
		for _, c := range fresh {
			if !w.knows(c) { // not twice
				w.known[c.Account] = append(w.known[c.Account], c.Limits.Windows()...)
			}
		}
	}
	return w.store.Commit(ctx, b)
}

// knows says whether the shared rows of a claim's account and windows exist for certain.
func (w *Writer) knows(c Claim) bool {
	windows, ok := w.known[c.Account]
	return ok && !slices.ContainsFunc(c.Limits.Budgets, func(b Budget) bool {
		return b.Window != "" && !slices.Contains(windows, b.Window)
	})
}

// answer tells every item of a committed batch its outcome.
func (w *Writer) answer(items []item, b *Batch, decisions map[*Admission]decision) {
	for i := range items {
		it := &items[i]
		r := result{logID: b.LogID}
		switch {
		case it.admission != nil:
			d := decisions[it.admission]
			r.standing = d.standing
			if d.refusal != nil {
				r.err = d.refusal
			}
			if it.admission.AskSpent {
				r.standing.KeySpent = b.spent(it.admission.KeyID, 0)
			}
		case it.ask:
			r.standing.KeySpent = b.spent(it.settlement.KeyID, it.settlement.Cost)
		}
		it.answer(r)
	}
}

// turnAway answers the admissions among the items of a batch that Postgres did not
// take, and returns the settlements.
func (w *Writer) turnAway(items []item) []item {
	var rest []item
	for _, it := range items {
		switch {
		case it.admission != nil && !w.outage.since.IsZero():
			it.answer(w.letIn(it.admission))
		case it.admission != nil:
			it.answer(result{err: errBusy})
		case it.settlement != nil:
			rest = append(rest, it)
		}
	}
	return rest
}

func fail(items []item, err error) {
	for i := range items {
		items[i].answer(result{err: err})
	}
}
