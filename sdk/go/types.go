package llmproxy

import (
	"strconv"
	"strings"
	"time"
)

// Limits bound what a key or a team may use. Nil or empty: no limit. Amounts are in
// nano-dollars (1e-9 USD), at list price.
type Limits struct {
	// MaxBudgetNanoUSD is the most that may be spent. Zero: nothing.
	MaxBudgetNanoUSD    *int64 `json:"max_budget_nano_usd,omitempty,string"`
	RPMLimit            *int64 `json:"rpm_limit,omitempty,string"` // requests a minute
	TPMLimit            *int64 `json:"tpm_limit,omitempty,string"` // tokens a minute
	MaxParallelRequests *int64 `json:"max_parallel_requests,omitempty,string"`
	// BudgetDuration is the window after which the budget starts again ("24h",
	// "30d"). Empty: never.
	BudgetDuration string `json:"budget_duration,omitempty"`
	// BudgetLimits are further budgets, each with a window of its own; at most 10.
	BudgetLimits []BudgetLimit `json:"budget_limits,omitempty"`
	// SoftBudgetNanoUSD is what may be spent in a window before an alert is sent.
	SoftBudgetNanoUSD *int64 `json:"soft_budget_nano_usd,omitempty,string"`
	// ModelMaxBudget, ModelRPMLimit and ModelTPMLimit bound single models, by the
	// name that clients send; at most 100 each.
	ModelMaxBudget map[string]BudgetLimit `json:"model_max_budget,omitempty"`
	ModelRPMLimit  map[string]Int64       `json:"model_rpm_limit,omitempty"`
	ModelTPMLimit  map[string]Int64       `json:"model_tpm_limit,omitempty"`
	// TempBudgetIncreaseNanoUSD is added to MaxBudgetNanoUSD until
	// TempBudgetExpiresAt. Both are given, or neither.
	TempBudgetIncreaseNanoUSD *int64     `json:"temp_budget_increase_nano_usd,omitempty,string"`
	TempBudgetExpiresAt       *time.Time `json:"temp_budget_expires_at,omitempty"`
	BudgetMode                BudgetMode `json:"budget_mode,omitempty"`
}

// BudgetLimit is a budget in a window. An empty window never ends.
type BudgetLimit struct {
	MaxBudgetNanoUSD int64  `json:"max_budget_nano_usd,string"`
	BudgetDuration   string `json:"budget_duration,omitempty"`
}

// BudgetMode says when a request is too much for a budget. Empty: as the proxy is set.
type BudgetMode string

// A hard budget takes a request only if its worst case still fits, a soft one while
// less than the budget is spent.
const (
	BudgetModeHard BudgetMode = "BUDGET_MODE_HARD"
	BudgetModeSoft BudgetMode = "BUDGET_MODE_SOFT"
)

// Int64 is a number that JSON has as a string, as everywhere in the REST API.
type Int64 int64

// MarshalJSON implements json.Marshaler.
func (n Int64) MarshalJSON() ([]byte, error) {
	return []byte(`"` + strconv.FormatInt(int64(n), 10) + `"`), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Int64) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(text), `"`), 10, 64)
	*n = Int64(v)
	return err
}

// Key is a virtual key without its secret.
type Key struct {
	KeyID     string         `json:"key_id"`
	Token     string         `json:"token"` // lower-case hex SHA-256 of the secret
	KeyName   string         `json:"key_name"`
	KeyAlias  string         `json:"key_alias"`
	TeamID    string         `json:"team_id"`
	UserID    string         `json:"user_id"` // the session
	Models    []string       `json:"models"`
	Limits    Limits         `json:"limits"`
	Metadata  map[string]any `json:"metadata"`
	ExpiresAt *time.Time     `json:"expires_at"` // nil: never
	Blocked   bool           `json:"blocked"`
	RevokedAt *time.Time     `json:"revoked_at"` // nil: it is live
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
	Duration  string         `json:"duration"` // as it was asked for; empty: for ever
	Tags      []string       `json:"tags"`
}

// Team is an organisation.
type Team struct {
	TeamID       string         `json:"team_id"`
	TeamAlias    string         `json:"team_alias"`
	Limits       Limits         `json:"limits"`
	Models       []string       `json:"models"`
	Metadata     map[string]any `json:"metadata"`
	Status       string         `json:"status"` // TEAM_STATUS_ACTIVE, …_BLOCKED, …_EXHAUSTED, …_SUSPENDED
	StatusReason string         `json:"status_reason"`
	CreatedAt    time.Time      `json:"created_at"`
	UpdatedAt    time.Time      `json:"updated_at"`
	DeletedAt    *time.Time     `json:"deleted_at"` // nil: it was not
}

// SessionCost is what a session has cost when it was ended.
type SessionCost struct {
	// Keys that the session had.
	Keys     int   `json:"keys"`
	Requests int64 `json:"requests,string"`
	// CostNanoUSD is in nano-dollars (1e-9 USD), at list price.
	CostNanoUSD int64 `json:"cost_nano_usd,string"`
	// OpenRequests are not settled yet. Not zero: the cost is not final, ask again.
	OpenRequests int64 `json:"open_requests,string"`
}

// Usage is what the model's provider reported, in tokens.
type Usage struct {
	InputTokens             int64  `json:"input_tokens,string"` // neither read from nor written to a cache
	OutputTokens            int64  `json:"output_tokens,string"`
	CacheReadInputTokens    int64  `json:"cache_read_input_tokens,string"`
	CacheWrite5mInputTokens int64  `json:"cache_write_5m_input_tokens,string"`
	CacheWrite1hInputTokens int64  `json:"cache_write_1h_input_tokens,string"`
	WebSearchRequests       int64  `json:"web_search_requests,string"`
	ReasoningTokens         int64  `json:"reasoning_tokens,string"` // part of the output
	Speed                   string `json:"speed"`
	InferenceGeo            string `json:"inference_geo"`
	ServiceTier             string `json:"service_tier"`
}

// SpendRow is one request on the ledger. Rows are never edited: a correction is a
// row of its own, so the sum over all rows is what was spent.
type SpendRow struct {
	RequestID  string `json:"request_id"`
	KeyID      string `json:"key_id"`
	TeamID     string `json:"team_id"`
	UserID     string `json:"user_id"`     // the session
	ModelGroup string `json:"model_group"` // the name that the client sent
	Model      string `json:"model"`       // the name that the provider got
	Usage      Usage  `json:"usage"`
	// CostNanoUSD is in nano-dollars (1e-9 USD), at list price; of a correction it
	// may be negative.
	CostNanoUSD int64 `json:"cost_nano_usd,string"`
	// Status is SPEND_STATUS_COMPLETED, …_FAILED, …_INTERRUPTED, …_ABORTED,
	// …_STOPPED, …_ABANDONED or …_ADJUSTED.
	Status     string     `json:"status"`
	Estimated  bool       `json:"estimated"` // some usage was not reported
	Stream     bool       `json:"stream"`
	StopReason string     `json:"stop_reason"`
	HTTPStatus int        `json:"http_status"` // of the provider; zero: no answer arrived
	ErrorType  string     `json:"error_type"`
	StartedAt  time.Time  `json:"started_at"`
	FirstByte  *time.Time `json:"first_byte_at"`
	EndedAt    time.Time  `json:"ended_at"`
	Tags       []string   `json:"tags"`
	// Adjusts is the request that this row corrects. Empty: it is its own.
	Adjusts string `json:"adjusts"`
}
