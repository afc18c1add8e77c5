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
type AccountID struct {
	Kind, ID string
	Model    string // of an account of a single model, whose ID is its owner's
}

// OfModel says whether it is a single model's.
func (id AccountID) OfModel() bool { return id.Kind == KindKeyModel || id.Kind == KindTeamModel }

// Name is what the account is called in tables.
func (id AccountID) Name() string {
	if !id.OfModel() {
		return id.ID
	}
	return id.ID + "\n" + id.Model
}

// The kinds of account.
const (
	KindKey   = "key"
	KindTeam  = "team"
	KindUser  = "user"
	KindModel = "model"
	KindTag   = "tag"
	// Shared rows of a key's and a team's single models exist only where those
	// have limits of their own. Totals are kept of every team's models.
	KindKeyModel  = "key_model"
	KindTeamModel = "team_model"
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
	Client       map[string]string // ids and agent headers that the client sent
}

// accounts are those that can have limits, whether they have or not.
func (r *Request) accounts() [4]AccountID {
	model := pricing.Bare(r.ModelGroup)
	ids := [4]AccountID{{KindKey, r.KeyID, ""}, {KindKeyModel, r.KeyID, model}}
	if r.TeamID != "" {
		ids[2], ids[3] = AccountID{KindTeam, r.TeamID, ""}, AccountID{KindTeamModel, r.TeamID, model}
	}
	return ids
}

// Admission asks for a request to be let in.
type Admission struct {
	Request
	// Hold is the request's worst case in money and Tokens that in tokens; they
	// count against limits until the request is settled.
	Hold   money.NanoUSD
	Tokens int64
	// Claims are the limits that it must keep; they are decided together.
	Claims []Claim
	// AskSpent asks what the key has spent although it has no limits.
	AskSpent bool `json:"-"`

	in       inSlices
	entered  uint8 // slices that it runs in and that were there before
	granted  bool  // they bear it by themselves
	standing Standing
}

// delta is what the admission takes from every account of the request.
func (a *Admission) delta() Delta {
	return Delta{Held: a.Hold, Open: 1, HeldTokens: a.Tokens, Requests: 1}
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
	Adjusted    Status = "adjusted"
)

// Settlement is the end of a request: the row that the ledger keeps.
type Settlement struct {
	Request
	Hold              money.NanoUSD // of its admission
	Tokens            int64         // as Hold
	MessageID         string
	UpstreamRequestID string
	Usage             pricing.Usage
	Cost              money.NanoUSD
	Breakdown         map[string]money.NanoUSD // by pool; its sum is Cost
	Status            Status
	Estimated         bool
	StopReason        string
	HTTPStatus        int
	ErrorType         string
	FirstByteAt       time.Time // zero: no byte arrived
	EndedAt           time.Time
	Retries           int     // how often it was sent again before
	Thread            *Thread // nil: the answer cannot be continued
	// Adjusts is the request whose row this one corrects by its differences;
	// empty: it is a request's own row.
	Adjusts string
	// Keep is what stays held of an estimate, in case its replica is only frozen
	// and corrects it.
	Keep money.NanoUSD
	// Unadmitted says that it is on the ledger by this alone, and nothing is held for
	// it: it ended before its admission was written, or was let in while Postgres was
	// away.
	Unadmitted bool

	in inSlices // of its admission
}

// delta is what the settlement changes in every account of the request.
func (s *Settlement) delta() Delta {
	d := Delta{Spent: s.Cost, Tokens: s.Usage.PromptTokens() + s.Usage.OutputTokens}
	switch {
	case s.Adjusts != "":
	case s.Unadmitted:
		d.Requests = 1
	default:
		d.Held, d.Open, d.HeldTokens = s.Keep-s.Hold, -1, -s.Tokens
	}
	return d
}

// Standing is where a key with limits and its team stand, for their client.
type Standing struct {
	// KeySpent is what the key has spent; nil: it has no limits and nobody asked,
	// or Postgres is away.
	KeySpent *money.NanoUSD
	// Left is the least that the budgets of key and team still allow, holds of
	// requests in flight not counted; nil: neither has a budget.
	Left *money.NanoUSD
	// ResetsAt is when that budget starts again; zero: never.
	ResetsAt time.Time
	// Warnings are due for soft budgets that are spent.
	Warnings []Warning
}

// Thread is a conversation that an upstream keeps: only the deployment that
// answered can continue it.
type Thread struct {
	Owner     string // who may continue it
	MessageID string // its last answer
	ModelID   string // the deployment
	Tokens    int64  // its length
}

// Row is a settlement in its place on the ledger.
type Row struct {
	LogID, Seq int64
	Settlement
}
