// Package billing turns what the ledger says a team spent into events, freezes
// sums of events into charges, and keeps each team's balance. Every nano-dollar
// that it was given is, at any time, in exactly one of: a charge, a carry, the
// quarantine.
//
// It reads no clock but its own and knows neither Postgres nor gRPC.
package billing

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// EventType is the type of the events that come from the ledger.
const EventType = "llm"

// Usage is what the upstream reported, pools apart, in tokens.
type Usage struct {
	InputTokens             int64  `json:"input_tokens"`
	OutputTokens            int64  `json:"output_tokens"`
	CacheReadInputTokens    int64  `json:"cache_read_input_tokens"`
	CacheWrite5mInputTokens int64  `json:"cache_write_5m_input_tokens"`
	CacheWrite1hInputTokens int64  `json:"cache_write_1h_input_tokens"`
	WebSearchRequests       int64  `json:"web_search_requests"`
	Speed                   string `json:"speed,omitempty"`
	InferenceGeo            string `json:"inference_geo,omitempty"`
	ServiceTier             string `json:"service_tier,omitempty"`
}

// Tokens is the sum of the token pools.
func (u Usage) Tokens() int64 {
	return u.InputTokens + u.OutputTokens + u.CacheReadInputTokens + u.CacheWrite5mInputTokens + u.CacheWrite1hInputTokens
}

// Row is a row of the ledger: one upstream request, or a correction of one.
type Row struct {
	LogID        int64         `json:"log_id"`
	Seq          int64         `json:"seq"`
	RequestID    string        `json:"request_id"`
	KeyID        string        `json:"key_id"`
	TeamID       string        `json:"team_id"`
	UserID       string        `json:"user_id"`
	Model        string        `json:"model"`
	Usage        Usage         `json:"usage"`
	CostNanoUSD  money.NanoUSD `json:"cost_nano_usd"`
	PriceVersion string        `json:"price_version"`
	Status       string        `json:"status"`
	EndedAt      time.Time     `json:"ended_at"` // zero: unknown
}

// Place is where a row stands in the ledger.
type Place struct{ LogID, Seq int64 }

// Event is one billed fact. It is never edited, except that it is given its
// charge once.
type Event struct {
	IdempotencyKey string
	OrganizationID string // the team
	EventType      string
	Quantity       int64 // tokens
	CostNanoUSD    money.NanoUSD
	PriceNanoUSD   money.NanoUSD
	Markup         string
	SessionIDs     []string
	ChargeID       string // empty: carried, no charge has taken it yet
	LogID, Seq     int64
	Model          string
	OccurredAt     time.Time
	CreatedAt      time.Time
	Corrects       string            // key of the event that a correction corrects
	Reason         string            // of a correction
	Extra          map[string]string `db:"-"` // free pairs of a recorded event
	// Row is where the event comes from. Events that were read back have none.
	Row Row `db:"-"`
}

// Balance is where a team's money stands. Billed is always charged + carried.
type Balance struct {
	TeamID             string
	BilledNanoUSD      money.NanoUSD
	ChargedNanoUSD     money.NanoUSD
	CarriedNanoUSD     money.NanoUSD // not in a charge yet; negative after corrections
	PostedNanoUSD      money.NanoUSD // what the sink has applied
	GrantedNanoUSD     money.NanoUSD // what the team was ever given
	NextChargeSeq      int64
	SinkBalanceCredits string // empty: nothing was posted yet
	OpenDriftNanoUSD   money.NanoUSD
	Gate
}

// Shadow is what the team may still use, as far as is known. It counts what the
// sink has not heard of yet.
func (b Balance) Shadow() money.NanoUSD { return b.GrantedNanoUSD - b.BilledNanoUSD }

// Unconfirmed is what was billed and is not proved to be applied at the sink.
func (b Balance) Unconfirmed() money.NanoUSD { return b.BilledNanoUSD - b.PostedNanoUSD }

// NewBalance is the balance of a team that was never billed.
func NewBalance(teamID string) Balance {
	return Balance{TeamID: teamID, NextChargeSeq: 1, Gate: Gate{State: Unconfigured}}
}
