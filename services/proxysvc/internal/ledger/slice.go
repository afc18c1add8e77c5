package ledger

import (
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// BudgetSlice is what the ledger has of a slice: what is held for it, and for requests that
// run in it. One that holds nothing is gone.
type BudgetSlice struct {
	Account      AccountID
	Held         money.NanoUSD
	Open, Tokens int64
}

// bit is the account's place among those of its requests (Request.accounts). Only keys and
// teams have slices.
func (id AccountID) bit() uint8 {
	switch id.Kind {
	case KindKey:
		return bitKey
	case KindTeam:
		return bitTeam
	}
	return 0
}

const bitKey, bitTeam = 1 << 0, 1 << 2

// inSlices says in which slices of a log a request runs.
type inSlices struct {
	bits  uint8 // of their accounts
	logID int64
}

func (in inSlices) of(logID int64) uint8 {
	if in.logID != logID {
		return 0
	}
	return in.bits
}

// Slices says in the slices of which accounts the request runs, in a log: 1 stands for its
// key's, 4 for its team's.
func (a *Admission) Slices(logID int64) uint8 { return a.in.of(logID) }

// Slices says in the slices of which accounts the request ran, as an Admission's.
func (s *Settlement) Slices(logID int64) uint8 { return s.in.of(logID) }

// runsIn says whether the request ran in the slice of an account.
func (s *Settlement) runsIn(id AccountID, logID int64) bool {
	owner := s.KeyID
	if id.Kind == KindTeam {
		owner = s.TeamID
	}
	return s.Slices(logID)&id.bit() != 0 && owner == id.ID
}

// direct are the accounts of the request, but those in whose slices it runs.
func (r *Request) direct(sliced uint8) [4]AccountID {
	ids := r.accounts()
	for i := range ids {
		if sliced>>i&1 == 1 {
			ids[i] = AccountID{}
		}
	}
	return ids
}

// sliceable says whether a slice can stand for the limits.
func (l Limits) sliceable() bool {
	return len(l.Budgets) > 0 && !l.Soft && l.MaxParallelRequests == nil && l.RPM == nil && l.TPM == nil
}

// same says whether limits that a slice can stand for are the same.
func (l Limits) same(m Limits) bool {
	warn := l.Warn == m.Warn || l.Warn != nil && m.Warn != nil && *l.Warn == *m.Warn
	return warn && l.sliceable() && m.sliceable() && slices.Equal(l.Budgets, m.Budgets)
}

// left is what the budgets of a claim have left that nobody holds.
func (c Claim) left(account *Account, now time.Time) money.NanoUSD {
	var least *money.NanoUSD
	for _, b := range c.Limits.Budgets {
		spent, _ := account.spent(b)
		if left := b.at(now) - spent - account.Held; least == nil || left < *least {
			least = &left
		}
	}
	if least == nil {
		return 0
	}
	return *least
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
