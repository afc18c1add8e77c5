package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// ErrFenced means that another replica took this log for dead and settled its
// requests; nothing more can be written to it.
var ErrFenced = errors.New("the log is fenced")

// Batch is what one transaction writes.
type Batch struct {
	LogID int64
	// Number counts the log's batches: 1, 2, 3, … and one is left out after a batch
	// that failed. A batch whose outcome was lost was committed if, and only if, the
	// log has its number.
	Number int64
	// FirstSeq is the place of the first settlement.
	FirstSeq    int64
	Settlements []*Settlement
	Admissions  []*Admission
	Progress    []*Progress
	KeepFor     time.Duration // for how long what estimates keep is held
	// Decide is called, once more where the batch is begun anew, with the state of every
	// limited account that the batch touches, locked and after its settlements, and with
	// the transaction's instant. It returns the admissions to write, and notes in the
	// accounts what those change.
	Decide func(accounts map[AccountID]*Account, now time.Time) []*Admission
	// Ask are keys of which it is asked what they have spent. Commit tells in Spent,
	// its own settlements included.
	Ask   []string
	Spent map[string]money.NanoUSD
	// Slices are those that the batch changes, as they are after it, once Decide was
	// called.
	Slices []BudgetSlice

	over []*slice // that are over, and to be written
	told []told   // what accounts are told that Decide was not given
}

// told is what an account is told of a slice.
type told struct {
	id AccountID
	Delta
}

// spent is what a key had spent before a request of the batch; nil: Commit did not
// tell.
func (b *Batch) spent(keyID string, on money.NanoUSD) *money.NanoUSD {
	spent, ok := b.Spent[keyID]
	if !ok {
		return nil
	}
	spent -= on
	return &spent
}

// Deltas are the changes that the batch makes to the rows of shared accounts by its
// settlements and by the admissions that were let in.
func (b *Batch) Deltas(admitted []*Admission, shared func(AccountID) bool) map[AccountID]Delta {
	deltas := map[AccountID]Delta{}
	add := func(ids [4]AccountID, d Delta) {
		for _, id := range ids {
			if id.ID == "" || !shared(id) {
				continue
			}
			deltas[id] = deltas[id].plus(d)
		}
	}
	for _, t := range b.told {
		deltas[t.id] = deltas[t.id].plus(t.Delta)
	}
	for _, s := range b.Settlements {
		add(s.direct(s.Slices(b.LogID)), s.delta())
	}
	for _, a := range admitted {
		add(a.direct(a.Slices(b.LogID)), a.delta())
	}
	return deltas
}

// Accounts are those of the requests of the batch that may be shared, each once.
func (b *Batch) Accounts(shared func(AccountID) bool) []AccountID {
	n := 2 * (len(b.Settlements) + len(b.Admissions)) // most limits are a key's and its team's
	ids, met := make([]AccountID, 0, n), make(map[AccountID]bool, n)
	add := func(of [4]AccountID) {
		for _, id := range of {
			if id.ID != "" && shared(id) && !met[id] {
				met[id] = true
				ids = append(ids, id)
			}
		}
	}
	for _, sl := range b.over {
		add([4]AccountID{sl.id})
	}
	for _, s := range b.Settlements {
		add(s.direct(s.Slices(b.LogID)))
	}
	for _, a := range b.Admissions {
		if a.granted {
			add(a.direct(a.Slices(b.LogID)))
		} else {
			add(a.accounts())
		}
	}
	return ids
}

// Settle changes shared accounts by the batch's settlements, as the store will.
func (b *Batch) Settle(accounts map[AccountID]*Account, now time.Time) {
	for _, s := range b.Settlements {
		apply(s.direct(s.Slices(b.LogID)), s.delta(), accounts, now)
	}
}

func apply(ids [4]AccountID, d Delta, accounts map[AccountID]*Account, now time.Time) {
	for _, id := range ids {
		if account := accounts[id]; account != nil {
			account.Apply(d, now)
		}
	}
}

// HasLimits says whether an admission needs a decision.
func (b *Batch) HasLimits() bool {
	return slices.ContainsFunc(b.Admissions, func(a *Admission) bool { return len(a.Claims) > 0 && !a.granted })
}

// Open is the state of a log that was just opened or read again.
type Open struct {
	LogID, Batch, LastSeq int64
}

// Store keeps the ledger. The writer's goroutine alone calls it. Its errors are
// fault.Unavailable when Postgres cannot do it now; any other one means that
// Postgres refuses what it was given.
type Store interface {
	// OpenLog starts a new log.
	OpenLog(ctx context.Context, instance string) (Open, error)
	// ReadLog tells how far a log is, after the outcome of a batch was lost. If the
	// batch is not there, the log goes past its number, so that it cannot come late:
	// its connection may be gone and its server still at work. ErrFenced when the log
	// is no longer ours, and still how far it is.
	ReadLog(ctx context.Context, logID, batch int64) (Open, error)
	// EnsureAccounts makes the shared rows of accounts that got a limit, with
	// what they have spent and hold by now, and those of their windows.
	EnsureAccounts(ctx context.Context, claims []Claim) error
	// Commit writes a batch whole or not at all. ErrFenced when the log is no
	// longer ours.
	Commit(ctx context.Context, b *Batch) error
	// TakeOver fences logs that have been silent for longer than `silence` and
	// makes logID the one to settle their requests, which it returns as they
	// were last seen.
	TakeOver(ctx context.Context, logID int64, silence time.Duration) ([]*Settlement, error)
	// FreeResiduals gives back what estimates have kept for long enough.
	FreeResiduals(ctx context.Context) error
	// Find tells what the ledger has of requests, by their ids.
	Find(ctx context.Context, requestIDs []string) (map[string]Found, error)
	// Writing tells which of these instances have a log that can still be written.
	Writing(ctx context.Context, instances []string) (map[string]bool, error)
	// CloseLogs closes the taken-over logs that have no open request left.
	CloseLogs(ctx context.Context, logID int64) error
	// CloseLog closes the own log, if it has no open request left.
	CloseLog(ctx context.Context, logID int64) error
}
