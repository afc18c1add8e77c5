// Package key is the domain of virtual keys and of the teams they belong to:
// what they are, who may get one, and when one stops. It keeps no state, logs
// nothing and never sees a secret after it was made: keys are stored and found
// by the hash of their secret.
package key

import (
	"encoding/json"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/id"
)

// Key is a virtual key without its secret. Its JSON is what audit rows show.
type Key struct {
	KeyID    string   `json:"key_id"`
	Token    string   `json:"token"`    // hex SHA-256 of the secret
	KeyName  string   `json:"key_name"` // "sk-..." and the secret's last four characters
	KeyAlias string   `json:"key_alias"`
	TeamID   string   `json:"team_id"` // empty: no team
	UserID   string   `json:"user_id"` // the session; empty: none
	Models   []string `json:"models"`
	Limits
	Metadata json.RawMessage `json:"metadata"` // an object, never nil
	Tags     []string        `json:"tags"`
	Duration string          `json:"duration"` // as it was asked for; empty: for ever
	// ExpiresAt and RevokedAt are nil when the key never expires and when it is
	// live.
	ExpiresAt      *time.Time `json:"expires_at"`
	Blocked        bool       `json:"blocked"`
	RevokedAt      *time.Time `json:"revoked_at"`
	IdempotencyKey string     `json:"idempotency_key"` // of the IssueSessionKey that made it
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

// Live says whether the key was not revoked. A live key may be blocked or have
// expired.
func (k Key) Live() bool { return k.RevokedAt == nil }

// Expired says whether the key's life is over at now.
func (k Key) Expired(now time.Time) bool { return k.ExpiresAt != nil && !now.Before(*k.ExpiresAt) }

// Usable says whether a request with the key may be taken at now, as far as the
// key itself decides it; the team's gate and the limits come on top.
func (k Key) Usable(now time.Time) bool { return k.Live() && !k.Blocked && !k.Expired(now) }

// Attributes are what a caller chooses about a key.
type Attributes struct {
	KeyAlias, TeamID, UserID string
	Models, Tags             []string
	Limits                   Limits
	Metadata                 json.RawMessage // nil: none
	Duration                 string          // LiteLLM's grammar; empty: for ever
}

// new makes a key of these attributes at now. The attributes must be valid.
func (a Attributes) new(now time.Time) (Key, error) {
	k := Key{
		KeyID: id.New(idPrefix, now), KeyAlias: a.KeyAlias, TeamID: a.TeamID, UserID: a.UserID,
		Models: list(a.Models), Tags: list(a.Tags), Limits: a.Limits,
		Metadata: object(a.Metadata), Duration: a.Duration, CreatedAt: now, UpdatedAt: now,
	}
	if a.Duration != "" {
		d, err := ParseDuration(a.Duration)
		if err != nil {
			return Key{}, err
		}
		end, err := d.After(now)
		if err != nil {
			return Key{}, err
		}
		k.ExpiresAt = &end
	}
	return k, nil
}

// list copies values, so that a nil list becomes an empty one.
func list(values []string) []string { return append([]string{}, values...) }

// object is metadata, or the empty object.
func object(metadata json.RawMessage) json.RawMessage {
	if len(metadata) == 0 {
		return json.RawMessage(`{}`)
	}
	return metadata
}
