package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// write commits the items as one batch and tells each its outcome. It returns
// when it is certain what became of them, however long that takes. An empty
// batch is a heartbeat.
//
// While Postgres is away the admissions are refused as soon as it is certain
// that they are not on the ledger, and the settlements are kept. An item that
// Postgres refuses for what it holds is found by halving the batch, and fails
// alone.
func (w *Writer) write(ctx context.Context, items []item) {
	for {
		start := time.Now()
		b, refusals := w.batch(items)
		err := w.commit(ctx, b)
		if err == nil {
			w.log.Batch, w.log.LastSeq = b.Number, b.FirstSeq+int64(len(b.Settlements))-1
			w.answer(items, refusals)
			w.seen.Committed(len(b.Settlements), len(b.Admissions)-len(refusals), time.Since(start))
			return
		}
		w.seen.Trouble("commit a batch", err)
		committed, certain := w.find(ctx, b)
		switch {
		case !certain:
			fail(items, errStopped)
			return
		case committed:
			w.answer(items, refusals)
			return
		case fault.KindOf(err) != fault.Unavailable && !errors.Is(err, ErrFenced):
			w.halve(ctx, items, err)
			return
		}
		items = refuse(items)
		if len(items) == 0 {
			return
		}
		if !pause(ctx, w.set.Retry) {
			fail(items, errStopped)
			return
		}
	}
}

// halve writes the halves of a batch that was refused; of a single item that is
// the end.
func (w *Writer) halve(ctx context.Context, items []item, err error) {
	if len(items) < 2 {
		w.seen.Trouble("an item cannot be written", err)
		fail(items, err)
		return
	}
	w.write(ctx, items[:len(items)/2])
	w.write(ctx, items[len(items)/2:])
}

// find asks until it is certain whether a batch whose commit failed is on the
// ledger after all; certain is false only when ctx ends first. A fenced log is
// followed by a new one: what it held in flight is settled by whoever fenced
// it.
func (w *Writer) find(ctx context.Context, b *Batch) (committed, certain bool) {
	for {
		log, err := w.store.ReadLog(ctx, b.LogID)
		switch {
		case errors.Is(err, ErrFenced):
			w.seen.Trouble("this log was fenced; a new one is opened", err)
			return false, w.open(ctx) == nil
		case err == nil:
			w.log = log
			return log.Batch == b.Number, true
		}
		w.seen.Trouble("read the log", err)
		if !pause(ctx, w.set.Retry) {
			return false, false
		}
	}
}

// batch builds the transaction. The refusals fill up when the store calls
// Decide.
func (w *Writer) batch(items []item) (*Batch, map[*Admission]*Refusal) {
	b := &Batch{LogID: w.log.LogID, Number: w.log.Batch + 1, FirstSeq: w.log.LastSeq + 1}
	refusals := map[*Admission]*Refusal{}
	for _, it := range items {
		switch {
		case it.admission != nil:
			b.Admissions = append(b.Admissions, it.admission)
		case it.logID != w.log.LogID:
			// The request's log was fenced: whoever did that settles it.
		case it.settlement != nil:
			b.Settlements = append(b.Settlements, it.settlement)
		case it.progress != nil:
			b.Progress = append(b.Progress, it.progress)
		}
	}
	b.Decide = func(accounts map[AccountID]*Account) []*Admission {
		clear(refusals)
		admitted := make([]*Admission, 0, len(b.Admissions))
		for _, a := range b.Admissions {
			if r := Admit(a, accounts[AccountID{KindKey, a.KeyID}], accounts[AccountID{KindTeam, a.TeamID}]); r != nil {
				refusals[a] = r
				continue
			}
			admitted = append(admitted, a)
		}
		return admitted
	}
	return b, refusals
}

// maxKnown bounds the memory of accounts that have a shared row.
const maxKnown = 100_000

// commit makes sure that every limited account of the batch has its shared row,
// and has the store write it.
func (w *Writer) commit(ctx context.Context, b *Batch) error {
	var fresh []AccountID
	for _, a := range b.Admissions {
		for _, account := range []struct {
			id     AccountID
			limits Limits
		}{{AccountID{KindKey, a.KeyID}, a.KeyLimits}, {AccountID{KindTeam, a.TeamID}, a.TeamLimits}} {
			if account.limits.Any() && !w.known[account.id] {
				fresh = append(fresh, account.id)
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
		for _, id := range fresh {
			w.known[id] = true
		}
	}
	return w.store.Commit(ctx, b)
}

// answer tells every item of a committed batch its outcome. A settlement that
// was left out because its log was fenced counts as settled: another replica
// has done it.
func (w *Writer) answer(items []item, refusals map[*Admission]*Refusal) {
	for _, it := range items {
		if it.result == nil {
			continue
		}
		r := result{logID: w.log.LogID}
		if it.admission != nil {
			if refusal := refusals[it.admission]; refusal != nil {
				r.err = refusal
			}
		}
		it.result <- r
	}
}

// refuse answers the admissions among the items and returns the rest.
func refuse(items []item) []item {
	var rest []item
	for _, it := range items {
		if it.admission != nil {
			it.result <- result{err: errBusy}
			continue
		}
		rest = append(rest, it)
	}
	return rest
}

func fail(items []item, err error) {
	for _, it := range items {
		if it.result != nil {
			it.result <- result{err: err}
		}
	}
}
