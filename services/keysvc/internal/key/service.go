package key

import (
	"context"
	"errors"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// Service is what one can do with keys and teams. Its errors are faults whose
// text may be shown, or the store's own.
type Service struct {
	store    Store
	duration string // life of session keys that do not ask for one
	now      func() time.Time
}

// NewService makes a service. sessionDuration, in LiteLLM's grammar, is the
// life of session keys that do not ask for one.
func NewService(store Store, sessionDuration string) *Service {
	return &Service{store: store, duration: sessionDuration, now: func() time.Time {
		return time.Now().UTC().Truncate(time.Microsecond) // what Postgres can hold
	}}
}

// Created is a new key and its secret, which nobody can read again.
type Created struct {
	Key    Key
	Secret secret.String
}

// renew gives the key a new secret.
func (c *Created) renew() {
	c.Secret = virtualkey.New()
	c.Key.Token, c.Key.KeyName = virtualkey.Token(c.Secret.Reveal()), virtualkey.Name(c.Secret)
}

// CreateKey makes a key with exactly the attributes given.
func (s *Service) CreateKey(ctx context.Context, by Caller, a Attributes) (Created, error) {
	if err := a.validate(); err != nil {
		return Created{}, err
	}
	k, err := a.new(s.now())
	if err != nil {
		return Created{}, err
	}
	c := Created{Key: k}
	c.renew()
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		return insert(ctx, tx, by, "key.create", c.Key)
	})
	return c, err
}

// insert writes a new key and its audit row. Nobody can remember a key that did
// not exist, so there is no event.
func insert(ctx context.Context, tx Tx, by Caller, action string, k Key) error {
	err := tx.InsertKey(ctx, k)
	switch {
	case errors.Is(err, ErrAliasTaken):
		return fault.Errorf(fault.Exists,
			"Key with alias '%s' already exists. Unique key aliases across all keys are required.", k.KeyAlias)
	case errors.Is(err, ErrNoTeam):
		return fault.Errorf(fault.NotFound, "team %s not found; make it with EnsureTeam first", k.TeamID)
	case err != nil:
		return err
	}
	return tx.Audit(ctx, Change{By: by, At: k.CreatedAt, Action: action, Entity: k.KeyID, After: k})
}

// errRefused is the one answer to every key that may not be used, so that
// nobody learns why.
var errRefused = fault.Errorf(fault.Unauthenticated, "invalid api key")

// VerifyKey tells what a key may do now. It does not judge the team's gate: the
// caller refuses with the status it finds.
func (s *Service) VerifyKey(ctx context.Context, token string) (Grant, error) {
	if !isToken(token) {
		return Grant{}, errRefused
	}
	g, err := s.store.Grant(ctx, token)
	if errors.Is(err, ErrNotFound) || err == nil && !g.Key.Usable(s.now()) {
		return Grant{}, errRefused
	}
	return g, err
}

// Key finds a key, live or not, by id, token or alias.
func (s *Service) Key(ctx context.Context, ref string) (Key, error) {
	if err := needText("key_id", ref, longestName); err != nil {
		return Key{}, err
	}
	k, err := s.store.Key(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return Key{}, fault.Errorf(fault.NotFound, "key %s not found", ref)
	}
	return k, err
}

// ListRequest asks for a page of keys. Empty fields do not filter.
type ListRequest struct {
	TeamID, UserID, KeyAlias string
	IncludeEnded             bool // also revoked and expired keys
	Page                     Page
}

// Keys lists keys, newest first, and returns the token of the next page.
func (s *Service) Keys(ctx context.Context, r ListRequest) ([]Key, string, error) {
	before, size, err := r.Page.read()
	if err != nil {
		return nil, "", err
	}
	f := Filter{TeamID: r.TeamID, UserID: r.UserID, KeyAlias: r.KeyAlias, Before: before, Limit: size + 1}
	for _, err := range []error{
		checkText("team_id", r.TeamID, longestID),
		checkText("user_id", r.UserID, longestID),
		checkText("key_alias", r.KeyAlias, longestName),
	} {
		if err != nil {
			return nil, "", err
		}
	}
	if !r.IncludeEnded {
		f.UsableAt = s.now()
	}
	keys, err := s.store.Keys(ctx, f)
	if err != nil || len(keys) <= size {
		return keys, "", err
	}
	return keys[:size], pageToken(keys[size-1].KeyID), nil
}
