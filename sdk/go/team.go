package llmproxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// TokenOf is what the proxy keeps of a virtual key: the lower-case hex SHA-256 of
// its plaintext, LiteLLM's `token`.
func TokenOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// TeamOptions are the attributes of a team that is made.
type TeamOptions struct {
	Alias    string         `json:"team_alias,omitempty"`
	Limits   Limits         `json:"limits,omitzero"`
	Models   []string       `json:"models,omitempty"` // empty: all
	Metadata map[string]any `json:"metadata,omitempty"`
}

// EnsureTeamExists makes the organisation's team when it is unknown, and says
// whether it did; a team that exists stays as it is. In direct mode there are no
// teams, and nothing is done.
func (c *Client) EnsureTeamExists(ctx context.Context, orgID string, opt TeamOptions) (Team, bool, error) {
	const op = "ensure a team"
	id, err := segment(op, "organisation's id", orgID)
	if err != nil || !c.Enabled() {
		return Team{}, false, err
	}
	var answer struct {
		Team    Team `json:"team"`
		Created bool `json:"created"`
	}
	err = c.call(ctx, request{op: op, method: http.MethodPut, path: "/v1/teams/" + id, body: opt}, &answer)
	return answer.Team, answer.Created, err
}

// SpendFilter selects rows of the ledger. What is empty does not filter.
type SpendFilter struct {
	OrgID, SessionID, KeyID, RequestID string

	EndedAfter  time.Time // at or after
	EndedBefore time.Time
	PageSize    int    // 1 to 1000; zero: 100
	PageToken   string // from the answer before
}

// SpendPage is one page of rows, newest first.
type SpendPage struct {
	Rows []SpendRow `json:"rows"`
	// NextPageToken is for the page after this one. Empty: this is the last one.
	NextPageToken string `json:"next_page_token"`
}

// ListSpendLogs lists what was spent, a row a request. In direct mode nobody knows
// that: it fails with ErrDisabled.
func (c *Client) ListSpendLogs(ctx context.Context, f SpendFilter) (SpendPage, error) {
	query := url.Values{}
	set := func(name, value string, given bool) {
		if given {
			query.Set(name, value)
		}
	}
	set("team_id", f.OrgID, f.OrgID != "")
	set("user_id", f.SessionID, f.SessionID != "")
	set("key_id", f.KeyID, f.KeyID != "")
	set("request_id", f.RequestID, f.RequestID != "")
	set("ended_after", f.EndedAfter.UTC().Format(time.RFC3339Nano), !f.EndedAfter.IsZero())
	set("ended_before", f.EndedBefore.UTC().Format(time.RFC3339Nano), !f.EndedBefore.IsZero())
	set("page_size", strconv.Itoa(f.PageSize), f.PageSize != 0)
	set("page_token", f.PageToken, f.PageToken != "")
	var page SpendPage
	err := c.call(ctx, request{op: "list spend logs", method: http.MethodGet, path: "/v1/spend", query: query}, &page)
	return page, err
}
