package ledger

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Ticket is a request that was admitted or begun: the right, and the duty, to
// settle it.
type Ticket struct {
	w         *Writer
	admission *Admission
	intent    *intent // nil: it was admitted before it began
	expires   time.Time
	result    chan result // of its admission, then of its settlement
	decided   bool        // about its admission, and known
	logID     int64       // of its admission; outageLog: it is in none
	// end is how it ended while its admission waited for the writer: both are one
	// row then. The writer puts `taken` there when it takes the admission.
	end     atomic.Pointer[Settlement]
	hurried atomic.Bool // somebody waits for the admission
	// Standing is where the key and its team stood when it was admitted.
	Standing Standing
}

var taken = new(Settlement)

var (
	errBusy    = fault.Errorf(fault.Unavailable, "the ledger cannot be written now; try again in a few seconds")
	errStopped = fault.Errorf(fault.Unavailable, "this replica is shutting down; try again")
)

// Admit puts the request on the ledger, or returns a *Refusal, or Unavailable
// when that could not be decided in time. If ctx ends first, the request is
// settled at no cost in case it was admitted after all: then nothing of its
// answer has been passed on.
func (w *Writer) Admit(ctx context.Context, a *Admission) (*Ticket, error) {
	timer := time.NewTimer(w.set.AdmitTimeout)
	defer timer.Stop()
	t := &Ticket{w: w, admission: a, result: make(chan result, 1)}
	select {
	case w.queue <- item{admission: a, result: t.result}:
	case <-timer.C:
		return nil, errBusy
	case <-w.stop:
		return nil, errStopped
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := t.wait(ctx, timer.C)
	if err != nil {
		go t.withdraw(context.WithoutCancel(ctx)) // the caller gives up, the ledger does not
		return nil, err
	}
	if t.decide(r); r.err != nil {
		return nil, r.err
	}
	return t, nil
}

// Begin puts a request on the ledger that is sent to its upstream meanwhile: Wait
// tells when it is there. It must be settled, whatever Wait says. A kill does not
// lose it: it is held in the journal until it is on the ledger. Nil when it must be
// admitted first: it has limits that no slices stand for, or Postgres is away, or the
// journal cannot hold it.
func (w *Writer) Begin(a *Admission) *Ticket {
	if w.away.Load() || len(a.Claims) > 0 && !w.slicer.admit(a) {
		return nil
	}
	held := w.intend(a)
	if held == nil {
		w.slicer.withdraw(a)
		return nil
	}
	t := &Ticket{w: w, admission: a, intent: held, expires: time.Now().Add(w.set.AdmitTimeout), result: make(chan result, 1)}
	select {
	case w.queue <- item{admission: a, result: t.result, ticket: t}:
		return t
	default: // it must wait for its turn
		held.Drop()
		w.slicer.withdraw(a)
		return nil
	}
}

// Wait returns when a request that was begun is on the ledger, or Unavailable when
// it is not in time, or ctx's error.
func (t *Ticket) Wait(ctx context.Context) error {
	if t.decided {
		return nil
	}
	if len(t.result) == 0 {
		t.hurry()
	}
	timer := time.NewTimer(time.Until(t.expires))
	defer timer.Stop()
	r, err := t.wait(ctx, timer.C)
	if err != nil {
		return err
	}
	t.decide(r)
	return r.err
}

// hurry has the writer write the admission, if it lets it wait for company.
func (t *Ticket) hurry() {
	t.hurried.Store(true)
	t.w.nudge()
}

// wait returns what the writer says. What it has said long ago counts, whatever else
// has come to its end meanwhile.
func (t *Ticket) wait(ctx context.Context, expired <-chan time.Time) (result, error) {
	select {
	case r := <-t.result:
		return r, nil
	default:
	}
	select {
	case r := <-t.result:
		return r, nil
	case <-expired:
		return result{}, errBusy
	case <-t.w.done:
		return result{}, errStopped
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
}

// decide notes what became of the admission. What a request costs that was begun and
// could not be admitted is booked all the same.
func (t *Ticket) decide(r result) {
	t.decided, t.logID, t.Standing = true, r.logID, r.standing
	if a := t.admission; a.granted {
		t.Standing = a.standing
		if r.standing.KeySpent != nil {
			t.Standing.KeySpent = r.standing.KeySpent
		}
	}
	if r.err != nil {
		t.logID = outageLog
	}
}

// withdraw settles an admission that nobody waited for. If the writer ends
// first, whoever takes the log over settles it.
func (t *Ticket) withdraw(ctx context.Context) {
	r, err := t.wait(ctx, nil)
	if err != nil || r.err != nil {
		return
	}
	t.decide(r)
	s := &Settlement{Request: t.admission.Request, Status: Aborted, EndedAt: t.admission.StartedAt}
	if err := t.Settle(ctx, s); err != nil {
		t.w.seen.Trouble("withdraw an admission", err)
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
// writer ends. If ctx does, the request is settled later; if the writer does, it stays
// open and another replica settles it from its progress.
func (t *Ticket) Settle(ctx context.Context, s *Settlement) error {
	a := t.admission
	s.Hold, s.Tokens, s.in = a.Hold, a.Tokens, a.in
	if !t.decided {
		s.Unadmitted = true
		both := t.end.CompareAndSwap(nil, s)
		if both {
			t.hurry()
		}
		r, err := t.wait(ctx, nil)
		if err != nil {
			return err
		}
		if t.decide(r); both {
			return r.err
		}
	}
	s.Unadmitted = t.logID == outageLog
	return t.put(ctx, s)
}

// put queues a settlement and returns when it is committed.
func (t *Ticket) put(ctx context.Context, s *Settlement) error {
	it := item{settlement: s, logID: t.logID, result: t.result, ticket: t}
	select {
	case t.w.queue <- it:
	case <-t.w.done:
		return errStopped
	case <-ctx.Done():
		go func() { // the caller gives up, the ledger does not
			select {
			case t.w.queue <- it:
			case <-t.w.done:
			}
		}()
		return ctx.Err()
	}
	r, err := t.wait(ctx, nil)
	if err != nil {
		return err
	}
	return r.err
}

// take takes items to write them. An admission whose request has ended meanwhile is a
// settlement that frees nothing.
func (w *Writer) take(items []item) []item {
	for i := range items {
		it := &items[i]
		if it.admission == nil || it.ticket == nil {
			continue
		}
		if s := it.ticket.end.Swap(taken); s != nil {
			it.settlement, it.logID, it.ask = s, w.log.LogID, it.admission.AskSpent
			it.admission = nil
		}
	}
	return items
}
