package ledger

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// Days is a range of days in UTC, both ends included. A zero end is none.
type Days struct{ From, To time.Time }

// Use is what an account used on a day; of a sum over days the day is zero.
type Use struct {
	Total
	Failed int64 // requests that did not complete, a part of Requests
}

// UseQuery asks what accounts of one kind used, by day.
type UseQuery struct {
	Kind string
	IDs  []string // nil: all
	Days
}

// Slice is what a key or a user used of one model on a day.
type Slice struct {
	Use               // its ID is the model
	ModelGroup string // as clients named it
	KeyID      string
	Token      string // the key's SHA-256 when it asked
	UserID     string // empty: none
}

// Balance is what an account has spent in its window, and when that ends.
type Balance struct {
	Spent    money.NanoUSD
	ResetsAt time.Time // zero: never
}

// BalanceQuery asks for a Balance.
type BalanceQuery struct {
	AccountID
	Window string // in LiteLLM's grammar; empty: one that never ends
}

// RowQuery picks spend rows of a time by the end of their requests; empty fields
// pick all.
type RowQuery struct {
	TeamID, UserID, KeyID, RequestID string
	Model                            string // as the upstream was asked for it
	ModelID, EndUser                 string
	MinCost, MaxCost                 *money.NanoUSD
	Failed                           *bool // whether they did not complete
	From, To                         time.Time
	Sort                             RowSort
	Ascending                        bool
	Offset, Limit                    int
}

// RowSort is what rows are listed by.
type RowSort int

// The sorts.
const (
	ByEnd RowSort = iota
	ByCost
	ByTokens
)
