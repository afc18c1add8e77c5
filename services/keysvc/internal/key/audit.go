package key

import (
	"context"
	"strconv"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Caller is who asked for a change, for the audit.
type Caller struct {
	Actor, RequestID string
	// ChangedBy is for whom, as the caller says; empty: not said.
	ChangedBy string
}

// Change is an audit row: what became of one key or team.
type Change struct {
	By            Caller
	At            time.Time
	Action        string // such as "key.revoke"
	Entity        string // key_id or team_id
	Before, After any    // Key or Team; nil: did not exist
}

// Entry is an audit row that was written. The keys and teams are nil where they
// did not exist or it is about the other kind.
type Entry struct {
	ID                          int64
	At                          time.Time
	Actor, ChangedBy, RequestID string
	Action, Entity              string
	KeyBefore, KeyAfter         *Key
	TeamBefore, TeamAfter       *Team
}

// AuditFilter says which audit rows to list. Empty fields do not filter.
type AuditFilter struct {
	Entity, Actor, RequestID string
	Action                   string // one that ends in a dot: all that begin so
	Since, Until             time.Time
	Before                   int64 // only rows with a smaller id; zero: all
	Limit                    int
}

// AuditRows lists audit rows, newest first, and returns the token of the next
// page.
func (s *Service) AuditRows(ctx context.Context, f AuditFilter, p Page) ([]Entry, string, error) {
	for _, err := range []error{
		checkText("entity", f.Entity, longestName),
		checkText("actor", f.Actor, longestName),
		checkText("request_id", f.RequestID, longestName),
		checkText("action", f.Action, longestName),
	} {
		if err != nil {
			return nil, "", err
		}
	}
	last, size, err := p.read()
	if err != nil {
		return nil, "", err
	}
	if last != "" {
		if f.Before, err = strconv.ParseInt(last, 10, 64); err != nil || f.Before <= 0 {
			return nil, "", fault.Errorf(fault.Invalid, "page_token is not one that an earlier page gave")
		}
	}
	f.Limit = size + 1
	rows, err := s.store.AuditRows(ctx, f)
	if err != nil || len(rows) <= size {
		return rows, "", err
	}
	return rows[:size], pageToken(strconv.FormatInt(rows[size-1].ID, 10)), nil
}
