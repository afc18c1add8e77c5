package ledger

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// ErrFenced means that another replica took this log for dead and settled its
// requests; nothing more can be written to it.
var ErrFenced = errors.New("the log is fenced")

// Batch is what one transaction writes.
type Batch struct {
	LogID int64
	// Number counts the log's batches: 1, 2, 3, … A batch whose outcome was lost
	// was committed if, and only if, the log has its number.
	Number int64
	// FirstSeq is the place of the first settlement.
	FirstSeq    int64
	Settlements []*Settlement
	Admissions  []*Admission
	Progress    []*Progress
	// Decide is called once, with the state of every limited account that the
	// batch touches, locked and after its settlements; it returns the admissions
	// to write.
	Decide func(map[AccountID]*Account) []*Admission
}

// Deltas are the changes that the batch makes to shared account rows by its
// settlements and by the admissions that were let in.
func (b *Batch) Deltas(admitted []*Admission) map[AccountID]Account {
	deltas := map[AccountID]Account{}
	for _, s := range b.Settlements {
		for _, id := range s.limited() {
			d := deltas[id]
			deltas[id] = Account{Spent: d.Spent + s.Cost, Held: d.Held - s.Hold, Open: d.Open - 1}
		}
	}
	for _, a := range admitted {
		for _, id := range a.limited() {
			d := deltas[id]
			deltas[id] = Account{Spent: d.Spent, Held: d.Held + a.Hold, Open: d.Open + 1}
		}
	}
	return deltas
}

// Limited lists the accounts that must be locked before the batch is decided:
// those whose shared rows it can change, if they have one.
func (b *Batch) Limited() []AccountID {
	return slices.Collect(maps.Keys(b.Deltas(b.Admissions)))
}

// HasLimits says whether an admission needs a decision.
func (b *Batch) HasLimits() bool {
	for _, a := range b.Admissions {
		if a.KeyLimits.Any() || a.TeamLimits.Any() {
			return true
		}
	}
	return false
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
	// ReadLog tells how far a log is, after a commit whose outcome was lost.
	// ErrFenced when the log is no longer ours.
	ReadLog(ctx context.Context, logID int64) (Open, error)
	// EnsureAccounts makes the shared rows of accounts that got a limit, with
	// what they have spent and hold by now.
	EnsureAccounts(ctx context.Context, ids []AccountID) error
	// Commit writes a batch whole or not at all. ErrFenced when the log is no
	// longer ours.
	Commit(ctx context.Context, b *Batch) error
	// TakeOver fences logs that have been silent for longer than `silence` and
	// makes logID the one to settle their requests, which it returns as they
	// were last seen.
	TakeOver(ctx context.Context, logID int64, silence time.Duration) ([]*Settlement, error)
	// CloseLogs closes the taken-over logs that have no open request left.
	CloseLogs(ctx context.Context, logID int64) error
	// CloseLog closes the own log, if it has no open request left.
	CloseLog(ctx context.Context, logID int64) error
}
