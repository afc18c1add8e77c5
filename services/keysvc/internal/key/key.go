// Package key is the domain of virtual keys and of the teams they belong to:
// what they are, who may get one, and when one stops. It keeps no state, logs
// nothing and never sees a secret after it was made: keys are stored and found
// by the hash of their secret.
package key

import (
	"encoding/json"
	"maps"
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
	// Aliases are names of the key's own for models; never nil.
	Aliases map[string]string `json:"aliases"`
	// AllowedCIDRs are the networks, and AllowedRoutes the routes, that the key
	// is good for. Empty: all. Never nil.
	AllowedCIDRs  []string `json:"allowed_cidrs"`
	AllowedRoutes []string `json:"allowed_routes"`
	Duration      string   `json:"duration"` // as it was asked for; empty: for ever
	// ExpiresAt and RevokedAt are nil when the key never expires and when it is
	// live.
	ExpiresAt      *time.Time `json:"expires_at"`
	Blocked        bool       `json:"blocked"`
	RevokedAt      *time.Time `json:"revoked_at"`
	IdempotencyKey string     `json:"idempotency_key"` // of the call that made it
	RotatedAt      *time.Time `json:"rotated_at"`      // nil: never
	RotationKey    string     `json:"rotation_key"`    // idempotency key of the last rotation
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
	KeyAlias, TeamID, UserID    string
	Models, Tags                []string
	AllowedCIDRs, AllowedRoutes []string
	Aliases                     map[string]string
	Limits                      Limits
	Metadata                    json.RawMessage // nil: none
	Duration                    string          // LiteLLM's grammar; empty or Forever: for ever
	Blocked                     bool
}

// Forever is how LiteLLM writes the life of a key that never expires.
const Forever = "-1"

// new makes a key of these attributes at now. The attributes must be valid.
func (a Attributes) new(now time.Time) (Key, error) {
	k := Key{
		KeyID: id.New(idPrefix, now), KeyAlias: a.KeyAlias, TeamID: a.TeamID, UserID: a.UserID,
		Models: list(a.Models), Tags: list(a.Tags), Aliases: names(a.Aliases), Limits: a.Limits,
		AllowedCIDRs: networks(a.AllowedCIDRs), AllowedRoutes: list(a.AllowedRoutes),
		Metadata: object(a.Metadata), Blocked: a.Blocked, CreatedAt: now, UpdatedAt: now,
	}
	return k, k.live(a.Duration, now)
}

// live gives the key a life from now on.
func (k *Key) live(duration string, now time.Time) error {
	if duration == "" || duration == Forever {
		k.Duration, k.ExpiresAt = "", nil
		return nil
	}
	d, err := ParseDuration(duration)
	if err != nil {
		return err
	}
	end, err := d.After(now)
	if err != nil {
		return err
	}
	k.Duration, k.ExpiresAt = duration, &end
	return nil
}

// attributes are what could be chosen about the key, but for its life.
func (k Key) attributes() Attributes {
	return Attributes{
		KeyAlias: k.KeyAlias, TeamID: k.TeamID, UserID: k.UserID, Models: k.Models, Tags: k.Tags,
		AllowedCIDRs: k.AllowedCIDRs, AllowedRoutes: k.AllowedRoutes, Aliases: k.Aliases,
		Limits: k.Limits, Metadata: k.Metadata, Blocked: k.Blocked,
	}
}

// list copies values, so that a nil list becomes an empty one.
func list(values []string) []string { return append([]string{}, values...) }

// names copies aliases, so that nil becomes an empty map.
func names(aliases map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, aliases)
	return out
}

// object is metadata, or the empty object.
func object(metadata json.RawMessage) json.RawMessage {
	if len(metadata) == 0 {
		return json.RawMessage(`{}`)
	}
	return metadata
}
