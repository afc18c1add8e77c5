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
	// A token may be of a secret that was rotated away, here and below.
	Key(ctx context.Context, ref string) (Key, error)
	// Keys lists keys, and CountKeys counts them.
	Keys(ctx context.Context, f Filter, s Slice) ([]Key, error)
	CountKeys(ctx context.Context, f Filter) (int64, error)
	// Grant finds what the key with the token may do; of a token that was rotated
	// away while its grace has not ended at now. ErrNotFound: no such key.
	Grant(ctx context.Context, token string, now time.Time) (Grant, error)
	// Team finds a team, deleted or not. ErrNotFound: there is none.
	Team(ctx context.Context, teamID string) (Team, error)
	// Teams lists teams by id, and CountTeams counts them.
	Teams(ctx context.Context, f TeamFilter, s Slice) ([]Team, error)
	CountTeams(ctx context.Context, f TeamFilter) (int64, error)
	// AuditRows lists audit rows, newest first.
	AuditRows(ctx context.Context, f AuditFilter) ([]Entry, error)
	// PruneEvents and PruneAudit delete up to limit of the oldest rows, none of
	// them from before or after a row that is newer than before.
	PruneEvents(ctx context.Context, before time.Time, limit int) (int, error)
	PruneAudit(ctx context.Context, before time.Time, limit int) (int, error)
}

// Tx is one transaction. To never wait for each other in a circle, all
// transactions lock in this order: by Hold the team and then the session, keys,
// the team's row, and by Append the revision, which makes other transactions
// wait until this one has ended.
type Tx interface {
	// Hold makes other transactions that hold the same wait.
	Hold(ctx context.Context, h Hold) error
	// LockKeys returns the selected keys by id, and keeps others from changing
	// them.
	LockKeys(ctx context.Context, s Selection) ([]Key, error)
	// Exists says whether there is a session, a key live or not, with userID,
	// or a team teamID. Empty ids do not exist.
	Exists(ctx context.Context, userID, teamID string) (bool, error)
	// HasTeam says whether there is a team that is not deleted.
	HasTeam(ctx context.Context, teamID string) (bool, error)
	// InsertKey fails with ErrAliasTaken or ErrNoTeam. The caller holds the
	// team, and has seen that it is not deleted.
	InsertKey(ctx context.Context, k Key) error
	// UpdateKeys writes all that can change of keys; it fails as InsertKey does.
	UpdateKeys(ctx context.Context, keys []Key) error
	// LockRepeated locks the live key that a call with the idempotency key made
	// for the session, which may be empty. ErrNotFound: there is none.
	LockRepeated(ctx context.Context, userID, idempotencyKey string) (Key, error)
	// Graces returns when the graces end that old secrets of a key still have at
	// now, that of the last one that was rotated away first.
	Graces(ctx context.Context, keyID string, now time.Time) ([]time.Time, error)
	// KeepOldSecret adds one that was rotated away at now. Nothing will announce
	// the end of one that has ended by then.
	KeepOldSecret(ctx context.Context, s OldSecret, now time.Time) error
	// EndOldSecrets ends those whose grace has not ended at now; the caller
	// announces it.
	EndOldSecrets(ctx context.Context, keyID string, now time.Time) error
	// TakeExpired returns up to limit keys whose life is over at now, and which
	// no transaction that committed has taken; one that runs elsewhere is not
	// waited for.
	TakeExpired(ctx context.Context, now time.Time, limit int) ([]Key, error)
	// TakeEndedSecrets does the same for old secrets and returns their keys,
	// each once.
	TakeEndedSecrets(ctx context.Context, now time.Time, limit int) ([]Key, error)
	// InsertTeam does nothing when the team exists, deleted or not.
	InsertTeam(ctx context.Context, t Team) (Insertion, error)
	// LockTeam returns a team, deleted or not, and keeps others from changing
	// it. ErrNotFound: there is none.
	LockTeam(ctx context.Context, teamID string) (Team, error)
	// UpdateTeam writes all of a team.
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
// and of a team; an alias or token selects what Store.Key finds.
type Selection struct {
	KeyIDs, KeyAliases, Tokens []string
	UserID, TeamID             string
}

// Hold is what a transaction holds until its end. An empty id: nothing.
type Hold struct {
	// TeamID keeps the team from being deleted or made; many may hold it so.
	TeamID string
	// Exclusive: alone, to delete or make the team.
	Exclusive bool
	// UserID is a session whose keys are replaced.
	UserID string
	// IdempotencyKey is held alone, to make one key only.
	IdempotencyKey string
}

// Insertion is what became of a team that was to be inserted.
type Insertion int

// What became of it.
const (
	Inserted Insertion = iota
	Existed
	WasDeleted // there is what is left of a deleted team
)

// Grant is what a key may do, and the revision that it is at least as new as.
type Grant struct {
	Key      Key
	Team     *Team // nil: the key has none
	Revision int64
	// SecretExpiresAt is when the grace of the token's secret ends; nil: it is
	// the key's own.
	SecretExpiresAt *time.Time
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
