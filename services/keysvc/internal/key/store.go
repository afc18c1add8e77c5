package key

import (
	"context"
	"errors"
	"time"
)

// What a Store says when the data do not allow what was asked.
var (
	ErrNotFound   = errors.New("not found")
	ErrAliasTaken = errors.New("a live key has this alias")
	ErrNoTeam     = errors.New("the key's team does not exist")
)

// Store keeps keys and teams. When it cannot be reached its methods return a
// fault of the kind Unavailable.
type Store interface {
	// Change runs f in one transaction, which commits when f returns nil.
	Change(ctx context.Context, f func(context.Context, Tx) error) error
	// Key finds a key, live or not, by id, token or alias; of several keys that
	// had an alias, the live one, else the newest. ErrNotFound: there is none.
	Key(ctx context.Context, ref string) (Key, error)
	// Keys lists keys, newest first.
	Keys(ctx context.Context, f Filter) ([]Key, error)
	// Grant finds what the key with the token may do. ErrNotFound: no such key.
	Grant(ctx context.Context, token string) (Grant, error)
	// Team finds a team. ErrNotFound: there is none.
	Team(ctx context.Context, teamID string) (Team, error)
	// Teams lists up to limit teams by id, from the first one after after.
	Teams(ctx context.Context, after string, limit int) ([]Team, error)
}

// Tx is one transaction. To never wait for each other in a circle, all
// transactions lock in this order: session, keys, team, and by Append the
// revision, which makes other transactions wait until this one has ended.
type Tx interface {
	// LockSession makes other transactions that lock the session wait.
	LockSession(ctx context.Context, userID string) error
	// LockKeys returns the selected keys by id, and keeps others from changing
	// them.
	LockKeys(ctx context.Context, s Selection) ([]Key, error)
	// Exists says whether there is a session, a key live or not, with userID,
	// or a team teamID. Empty ids do not exist.
	Exists(ctx context.Context, userID, teamID string) (bool, error)
	// InsertKey fails with ErrAliasTaken or ErrNoTeam.
	InsertKey(ctx context.Context, k Key) error
	// UpdateKeys writes what can change: token, key_name, blocked, revoked_at
	// and updated_at.
	UpdateKeys(ctx context.Context, keys []Key) error
	// InsertTeam returns false, and does nothing, when the team exists.
	InsertTeam(ctx context.Context, t Team) (bool, error)
	// LockTeam returns a team and keeps others from changing it.
	LockTeam(ctx context.Context, teamID string) (Team, error)
	// UpdateTeam writes what can change: status, status_reason and updated_at.
	UpdateTeam(ctx context.Context, t Team) error
	// Audit writes audit rows.
	Audit(ctx context.Context, changes ...Change) error
	// Append gives the event its revision, one more than the last committed
	// one's, and returns it.
	Append(ctx context.Context, e Event) (int64, error)
	// Revision is the newest revision that this transaction can see.
	Revision(ctx context.Context) (int64, error)
}

// Selection names keys. UserID and TeamID select the live keys of a session
// and of a team; an alias selects what Store.Key finds.
type Selection struct {
	KeyIDs, KeyAliases, Tokens []string
	UserID, TeamID             string
}

// Filter says which keys to list. Empty fields do not filter.
type Filter struct {
	TeamID, UserID, KeyAlias string
	UsableAt                 time.Time // zero: also revoked and expired keys
	Before                   string    // only keys with a smaller id; empty: all
	Limit                    int
}

// Grant is what a key may do, and the revision that it is at least as new as.
type Grant struct {
	Key      Key
	Team     *Team // nil: the key has none
	Revision int64
}

// Event is a change that those who remember keys must hear of.
type Event struct {
	Revision        int64
	KeyIDs, TeamIDs []string
	// Stopped: running streams of these keys and teams must be cut, for Reason.
	Stopped bool
	Reason  string
	At      time.Time
}

// Caller is who asked for a change, for the audit.
type Caller struct{ Actor, RequestID string }

// Change is an audit row: what became of one key or team.
type Change struct {
	By            Caller
	At            time.Time
	Action        string // such as "key.revoke"
	Entity        string // key_id or team_id
	Before, After any    // Key or Team; nil: did not exist
}
