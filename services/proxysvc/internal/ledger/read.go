package ledger

import (
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Log is one process's part of the ledger, as readers see it.
type Log struct {
	LogID, LastSeq         int64
	Closed                 bool // nothing will be added
	StartedAt, HeartbeatAt time.Time
}

// Filter picks spend rows; empty fields pick all.
type Filter struct {
	TeamID, UserID, KeyID, RequestID, Model string
	EndedAfter, EndedBefore                 time.Time
	// After continues behind a row of the page before.
	After *Row
	Limit int
}

// Total is one line of a report.
type Total struct {
	ID       string
	Day      time.Time
	Requests int64
	Cost     money.NanoUSD
	Usage    pricing.Usage
}

// Summary is where one account stands.
type Summary struct {
	Requests     int64
	Spent, Held  money.NanoUSD
	OpenRequests int64
}

// OpenRequest is a request in flight.
type OpenRequest struct {
	LogID int64
	Admission
}

// Audit is the ledger checked against itself.
type Audit struct {
	Logs, Rows, OpenRequests int64
	Cost, Held               money.NanoUSD
	Teams                    []TeamSpend
	Faults                   []string // empty: the sums agree
}

// TeamSpend is what a team spent.
type TeamSpend struct {
	TeamID   string
	Requests int64
	Cost     money.NanoUSD
}
