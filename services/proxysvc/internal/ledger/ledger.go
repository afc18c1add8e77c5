// Package ledger decides which requests may run and records what every request
// cost, exactly once. It holds the rules and the single writer of this
// process's log; it speaks to Postgres only through the Store that it is given.
//
// The order of one request is: Admit, any number of Progress, Settle. Nothing
// may reach the client before Admit has returned, and the end of the answer only
// after Settle has.
package ledger

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// AccountID names what money is counted for, e.g. {Kind: "team", ID: "acme"}.
type AccountID struct{ Kind, ID string }

// The kinds of account.
const (
	KindKey   = "key"
	KindTeam  = "team"
	KindUser  = "user"
	KindModel = "model"
)

// Request is what is known of a request when it is admitted.
type Request struct {
	RequestID    string // "req_…", ours
	KeyID        string
	Token        string // the key's SHA-256, LiteLLM's api_key
	TeamID       string // empty: none
	UserID       string // empty: none
	ModelGroup   string // as the client named it
	Model        string // as the upstream is asked for it
	ModelID      string // the deployment
	PriceVersion string
	Stream       bool
	StartedAt    time.Time
	Tags         []string
	UserAgent    string
}

// Accounts are the accounts that the request counts for.
func (r Request) Accounts() []AccountID {
	ids := []AccountID{{KindKey, r.KeyID}, {KindModel, r.Model}}
	if r.TeamID != "" {
		ids = append(ids, AccountID{KindTeam, r.TeamID})
	}
	if r.UserID != "" {
		ids = append(ids, AccountID{KindUser, r.UserID})
	}
	return ids
}

// limited are the accounts that can have limits.
func (r Request) limited() []AccountID {
	ids := []AccountID{{KindKey, r.KeyID}}
	if r.TeamID != "" {
		ids = append(ids, AccountID{KindTeam, r.TeamID})
	}
	return ids
}

// Limits bound an account; nil fields are no limits.
type Limits struct {
	MaxBudgetNanoUSD    *money.NanoUSD
	MaxParallelRequests *int64
}

// Any says whether there is a limit at all.
func (l Limits) Any() bool { return l.MaxBudgetNanoUSD != nil || l.MaxParallelRequests != nil }

// Admission asks for a request to be let in.
type Admission struct {
	Request
	// Hold is the request's worst case; it counts against budgets until the
	// request is settled.
	Hold      money.NanoUSD
	KeyLimits Limits
	// TeamLimits bound the whole team; they are decided together with the key's.
	TeamLimits Limits
}

// Progress is what a running request has used so far, kept so that another
// replica can settle it if this one dies.
type Progress struct {
	RequestID string
	MessageID string
	Usage     pricing.Usage
	Cost      money.NanoUSD
}

// Status says how a request ended.
type Status string

// The statuses; the proto's SpendStatus describes them.
const (
	Completed   Status = "completed"
	Failed      Status = "failed"
	Interrupted Status = "interrupted"
	Aborted     Status = "aborted"
	Stopped     Status = "stopped"
	Abandoned   Status = "abandoned"
)

// Settlement is the end of a request: the row that the ledger keeps.
type Settlement struct {
	Request
	Hold              money.NanoUSD
	MessageID         string
	UpstreamRequestID string
	Usage             pricing.Usage
	Cost              money.NanoUSD
	Status            Status
	Estimated         bool
	StopReason        string
	HTTPStatus        int
	ErrorType         string
	FirstByteAt       time.Time // zero: no byte arrived
	EndedAt           time.Time
}

// Row is a settlement in its place on the ledger.
type Row struct {
	LogID, Seq int64
	Settlement
}

// Account is the state of a limited account: what it has spent, what is held
// for its requests in flight, and how many those are.
type Account struct {
	Spent, Held money.NanoUSD
	Open        int64
}
