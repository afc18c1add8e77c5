package ledger

import (
	"slices"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// A slice of a budget is what this process's log holds of an account for requests to come,
// beside those that run in it, so that they are admitted without asking Postgres. To the
// ledger all of it is held, and each row says in which slices its request ran: so it can be
// told from the rows what a process that died had spent of its slices. The account is told
// when a slice is over. Only hard budgets are sliced, while they are far from used up; who
// has other limits, too, is decided on by the account each time.
//
// What an account has spent and holds, slices included, is never more than its budget; what
// runs in a slice, and what was spent of it and not told, never more than the slice.

const (
	// A slice is an eighth of what is left at most, so that all replicas get theirs.
	sliceOfLeft = 8
	// It is of no use if it does not bear two requests: an agent makes one after the other,
	// and few cost what is held for them. To begin with it bears many.
	sliceAtLeast, sliceAtFirst = 2, 16
	// beforeReset is how long before the end of a window nothing of it is sliced: what is
	// spent counts for the window that it is settled in.
	beforeReset = 10 * time.Second
	maxSlices   = 20_000
)

// holding is what running requests hold of an account.
type holding struct {
	held         money.NanoUSD
	open, tokens int64
}

func (h holding) plus(hold money.NanoUSD, tokens int64) holding {
	return holding{h.held + hold, h.open + 1, h.tokens + tokens}
}

func (h holding) minus(hold money.NanoUSD, tokens int64) holding {
	return holding{h.held - hold, h.open - 1, h.tokens - tokens}
}

// slice is the slice of one account.
type slice struct {
	id      AccountID
	limits  Limits        // that it was cut by
	until   time.Time     // by this machine's clock; from then on it is over
	want    money.NanoUSD // what it had beside its requests when it was cut
	view    Account       // as the account stood then, and what this process spent since
	noted   holding       // what the account holds for it
	running holding
	untold  Delta // what was spent and used of it since the account was told
	// next is what a batch makes of it that is being written; nobody is admitted by it
	// meanwhile.
	next *nextSlice
}

type nextSlice struct {
	limits         Limits
	until          time.Time
	want, spare    money.NanoUSD
	view           *Account // nil: as it was
	noted, running holding
}

// slicer keeps the slices of a log. The writer's goroutine cuts them and tells of them;
// requests are admitted by them from their own.
type slicer struct {
	last time.Duration // of a slice, at most; 0: nothing is sliced

	mu    sync.Mutex
	logID int64
	of    map[AccountID]*slice
	asked map[AccountID]time.Time // when accounts without slices were asked
	// next are the slices that the batch changes which is being written, and admitted those
	// of its requests that slices bear and that did not begin before.
	next     []*slice
	admitted []*Admission
}

func newSlicer(last time.Duration) *slicer {
	return &slicer{last: last, of: map[AccountID]*slice{}, asked: map[AccountID]time.Time{}}
}

// begin goes on to a new log, which has no slices: those of the one before ended with it, and
// whom they let in without having begun is to be asked for anew.
func (s *slicer) begin(logID int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.admitted {
		a.in, a.entered, a.granted = inSlices{}, 0, false
	}
	s.logID, s.next, s.admitted = logID, nil, nil
	clear(s.of)
	clear(s.asked)
}

// admit lets a request in if the slices of all its claims bear it.
func (s *slicer) admit(a *Admission) bool {
	if s.last == 0 {
		return false
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var bits uint8
	for _, c := range a.Claims {
		if !s.bears(c, a, now) {
			return false
		}
		bits |= c.Account.bit()
	}
	s.enter(a, bits)
	a.granted = true
	a.standing = standing(a, func(id AccountID) *Account { return &s.of[id].view }, now)
	return true
}

// bears says whether the slice of a claim's account bears a request.
func (s *slicer) bears(c Claim, a *Admission, now time.Time) bool {
	sl := s.of[c.Account]
	return sl != nil && sl.next == nil && now.Before(sl.until) && a.Hold <= sl.noted.held-sl.running.held-sl.untold.Spent && c.Limits.same(sl.limits)
}

// enter has a request run in slices.
func (s *slicer) enter(a *Admission, bits uint8) {
	a.in, a.entered = inSlices{bits, s.logID}, bits
	for _, sl := range s.in(&a.Request, bits) {
		if sl != nil {
			sl.running = sl.running.plus(a.Hold, a.Tokens)
			sl.untold.Requests++
		}
	}
}

// in are the slices of a request's accounts, its key's and its team's.
func (s *slicer) in(r *Request, bits uint8) (of [2]*slice) {
	if bits&bitKey != 0 {
		of[0] = s.of[AccountID{Kind: KindKey, ID: r.KeyID}]
	}
	if bits&bitTeam != 0 {
		of[1] = s.of[AccountID{Kind: KindTeam, ID: r.TeamID}]
	}
	return of
}

// leave takes back that a request was let in.
func (s *slicer) leave(a *Admission) {
	for _, sl := range s.in(&a.Request, a.in.of(s.logID)&a.entered) {
		if sl != nil {
			sl.running = sl.running.minus(a.Hold, a.Tokens)
			sl.untold.Requests--
			if sl.next != nil {
				sl.next.running = sl.next.running.minus(a.Hold, a.Tokens)
			}
		}
	}
	a.in, a.entered, a.granted = inSlices{}, 0, false
}

// withdraw takes back that a request was let in, and has not begun.
func (s *slicer) withdraw(a *Admission) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(a)
}

// prepare lets those requests of a batch in that slices bear, and has it tell of slices that
// are over: those that it settles requests of, or, where it has nothing else to write, any.
func (s *slicer) prepare(b *Batch) {
	for _, a := range b.Admissions {
		if len(a.Claims) > 0 && !a.granted && s.admit(a) {
			s.admitted = append(s.admitted, a)
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b.Settlements)+len(b.Admissions)+len(b.Progress) == 0 {
		for _, sl := range s.of {
			if sl.isOver(now) {
				b.over = append(b.over, sl)
			}
			if len(b.over) == maxBatch {
				break
			}
		}
		return
	}
	for _, x := range b.Settlements {
		for _, sl := range s.in(&x.Request, x.Slices(b.LogID)) {
			if sl != nil && !now.Before(sl.until) && !slices.Contains(b.over, sl) {
				b.over = append(b.over, sl)
			}
		}
	}
}

// isOver says whether the slice is over and the account does not know it yet.
func (sl *slice) isOver(now time.Time) bool {
	return !now.Before(sl.until) && (sl.running.open == 0 || sl.noted != sl.running || sl.untold != Delta{})
}

// over is how many slices are over.
func (s *slicer) over() (n int) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.of {
		if sl.isOver(now) {
			n++
		}
	}
	return n
}

// decide decides a batch: see Batch.Decide.
func (s *slicer) decide(b *Batch, accounts map[AccountID]*Account, now time.Time, tell func(*Admission, *Refusal, Standing)) []*Admission {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo(false)
	b.Slices, b.told = nil, nil
	for _, sl := range b.over {
		d := s.open(b, sl)
		if account := accounts[sl.id]; account != nil {
			account.Apply(d, now)
		} else {
			b.told = append(b.told, told{sl.id, d})
		}
	}
	admitted := make([]*Admission, 0, len(b.Admissions))
	for _, a := range b.Admissions {
		if a.granted {
			apply(a.direct(a.Slices(b.LogID)), a.delta(), accounts, now)
			admitted = append(admitted, a) // its ticket knows where it stands
			continue
		}
		r := s.ask(b, a, accounts, now)
		tell(a, r, standing(a, func(id AccountID) *Account {
			if a.entered&id.bit() != 0 {
				return &s.of[id].view
			}
			return accounts[id]
		}, now))
		if r == nil {
			admitted = append(admitted, a)
		}
	}
	for _, sl := range s.next {
		n := sl.next
		n.noted = n.running
		n.noted.held += n.spare
		if account := accounts[sl.id]; account != nil {
			view := *account
			n.view = &view
		}
		b.Slices = append(b.Slices, BudgetSlice{sl.id, n.noted.held, n.noted.open, n.noted.tokens})
	}
	return admitted
}

// ask decides on one admission by the accounts of those claims that no slice bears, and cuts
// slices of them. Whatever refuses, nothing is taken from anybody.
func (s *slicer) ask(b *Batch, a *Admission, accounts map[AccountID]*Account, now time.Time) *Refusal {
	var bits uint8
	for _, c := range a.Claims {
		switch account := accounts[c.Account]; {
		case s.bears(c, a, time.Now()):
			bits |= c.Account.bit()
		case account != nil && s.of[c.Account] != nil:
			account.Apply(s.open(b, s.of[c.Account]), now)
		}
	}
	if r := admit(a, bits, accounts, now); r != nil {
		return r
	}
	if len(a.Claims) == 0 {
		return nil
	}
	s.enter(a, bits)
	for _, c := range a.Claims {
		if account := accounts[c.Account]; account != nil && bits&c.Account.bit() == 0 && s.cut(c, a, account, now) {
			a.in.bits |= c.Account.bit()
		}
	}
	s.admitted = append(s.admitted, a)
	return nil
}

// open has the batch change a slice: at first it keeps what runs in it and is over. It
// returns what that changes in the account, which is told all.
func (s *slicer) open(b *Batch, sl *slice) Delta {
	if n := sl.next; n != nil { // for the next request of the batch it is cut anew
		d := Delta{Held: -n.spare}
		n.spare = 0
		return d
	}
	n := &nextSlice{limits: sl.limits, want: sl.want, running: sl.running}
	d := sl.untold
	for _, x := range b.Settlements {
		if x.runsIn(sl.id, b.LogID) {
			n.running = n.running.minus(x.Hold, x.Tokens)
			d.Spent += x.Cost
			d.Tokens += x.delta().Tokens
		}
	}
	if time.Now().Before(sl.until) { // it was too little
		n.want *= 2
	} else {
		n.want = 2 * d.Spent
	}
	d.Held, d.Open, d.HeldTokens = n.running.held-sl.noted.held, n.running.open-sl.noted.open, n.running.tokens-sl.noted.tokens
	sl.next = n
	s.next = append(s.next, sl)
	return d
}

// cut cuts a slice of an account that has just admitted a request, which runs in it then. An
// account that is asked for the first time in a while gets none, nor one with little left.
func (s *slicer) cut(c Claim, a *Admission, account *Account, now time.Time) bool {
	if c.Account.bit() == 0 || !c.Limits.sliceable() {
		return false
	}
	sl := s.of[c.Account]
	if sl == nil {
		before, ok := s.asked[c.Account]
		if len(s.asked) >= maxSlices {
			clear(s.asked)
		}
		if s.asked[c.Account] = time.Now(); !ok || time.Since(before) > s.last || len(s.of) >= maxSlices {
			return false
		}
		sl = &slice{id: c.Account, next: &nextSlice{}}
	}
	n := sl.next
	left, until := c.left(account, now), now.Add(s.last)
	for _, b := range c.Limits.Budgets {
		if _, resets := account.spent(b); !resets.IsZero() {
			until = earlier(until, resets.Add(-beforeReset))
		}
		if b.IncreaseUntil.After(now) {
			until = earlier(until, b.IncreaseUntil.Add(-beforeReset))
		}
	}
	spare := min(max(n.want, sliceAtFirst*a.Hold), left/sliceOfLeft)
	if spare <= 0 || spare < sliceAtLeast*a.Hold || !until.After(now) {
		return false
	}
	if s.of[c.Account] == nil {
		s.of[c.Account] = sl
		s.next = append(s.next, sl)
	}
	account.Apply(Delta{Held: spare}, now)
	n.limits, n.until, n.want, n.spare = c.Limits, time.Now().Add(until.Sub(now)), spare, spare
	n.running = n.running.plus(a.Hold, a.Tokens)
	return true
}

// undo forgets what a batch was to change that is not written; all: also that slices have
// let its requests in.
func (s *slicer) undo(all bool) {
	for _, sl := range s.next {
		if sl.next = nil; sl.noted == (holding{}) && sl.until.IsZero() { // it was new
			delete(s.of, sl.id)
		}
	}
	s.next = nil
	s.admitted = slices.DeleteFunc(s.admitted, func(a *Admission) bool {
		if a.granted && !all {
			return false
		}
		s.leave(a)
		return true
	})
}

// failed is called when a batch is not on the ledger.
func (s *slicer) failed(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.LogID == s.logID {
		s.undo(true)
	}
}

// written is called when a batch is on the ledger, before anybody knows.
func (s *slicer) written(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.LogID != s.logID {
		return
	}
	for _, x := range b.Settlements {
		for _, sl := range s.in(&x.Request, x.Slices(b.LogID)) {
			if sl != nil && sl.next == nil {
				sl.running = sl.running.minus(x.Hold, x.Tokens)
				sl.untold.Spent += x.Cost
				sl.untold.Tokens += x.delta().Tokens
				sl.view.Apply(Delta{Spent: x.Cost}, time.Time{})
			}
		}
	}
	for _, sl := range s.next {
		n := sl.next
		sl.limits, sl.until, sl.want, sl.noted, sl.running, sl.untold, sl.next = n.limits, n.until, n.want, n.noted, n.running, Delta{}, nil
		if n.view != nil {
			sl.view = *n.view
		}
		if sl.noted == (holding{}) && sl.running == (holding{}) {
			delete(s.of, sl.id)
			if sl.want > 0 { // it was used, and may be again
				s.asked[sl.id] = time.Now()
			}
		}
	}
	s.next, s.admitted = nil, nil
}
