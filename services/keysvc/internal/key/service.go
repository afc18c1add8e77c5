package key

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// Service is what one can do with keys and teams. Its errors are faults whose
// text may be shown, or the store's own.
type Service struct {
	store  Store
	policy Policy
	now    func() time.Time
}

// NewService makes a service. The policy must be valid.
func NewService(store Store, policy Policy) *Service {
	return &Service{store: store, policy: policy, now: func() time.Time {
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

// CreateRequest asks for a key.
type CreateRequest struct {
	Attributes
	// IdempotencyKey: a repeat with the same one and UserID, TeamID and KeyAlias
	// renews the secret of the key that the first call made, while that is live.
	// Empty: each call makes a new key.
	IdempotencyKey string
}

// CreateKey makes a key with the attributes given and, where they leave
// something open, the policy's.
func (s *Service) CreateKey(ctx context.Context, by Caller, r CreateRequest) (Created, error) {
	a, err := s.policy.complete(r.Attributes, false)
	if err != nil {
		return Created{}, err
	}
	for _, err := range []error{a.validate(), checkText("idempotency_key", r.IdempotencyKey, longestName)} {
		if err != nil {
			return Created{}, err
		}
	}
	var c Created
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.Hold(ctx, Hold{TeamID: a.TeamID, IdempotencyKey: r.IdempotencyKey}); err != nil {
			return err
		}
		now := s.now()
		if c.Key, err = repeated(ctx, tx, by, r, now); err != nil {
			return err
		}
		if c.Key.KeyID != "" {
			return s.renew(ctx, tx, by, &c, now)
		}
		if a.TeamID != "" {
			if err := needTeam(ctx, tx, a.TeamID); err != nil {
				return err
			}
		}
		if c.Key, err = a.new(now); err != nil {
			return err
		}
		c.Key.IdempotencyKey = r.IdempotencyKey
		c.renew()
		return insert(ctx, tx, by, "key.create", c.Key)
	})
	return c, err
}

// repeated finds the key that an earlier call with the same idempotency key
// made; no key when there is none. One whose life is over is revoked: its
// idempotency key is free again.
func repeated(ctx context.Context, tx Tx, by Caller, r CreateRequest, now time.Time) (Key, error) {
	if r.IdempotencyKey == "" {
		return Key{}, nil
	}
	k, err := tx.LockRepeated(ctx, r.UserID, r.IdempotencyKey)
	switch {
	case errors.Is(err, ErrNotFound):
		return Key{}, nil
	case err != nil:
		return Key{}, err
	case k.Expired(now):
		_, _, err = revoke(ctx, tx, by, []Key{k}, now)
		return Key{}, err
	case k.TeamID != r.TeamID:
		return Key{}, errOtherCall("team_id")
	case k.KeyAlias != r.KeyAlias:
		return Key{}, errOtherCall("key_alias")
	}
	return k, nil
}

// insert writes a new key and its audit row. Nobody can remember a key that did
// not exist, so there is no event.
func insert(ctx context.Context, tx Tx, by Caller, action string, k Key) error {
	if err := tx.InsertKey(ctx, k); err != nil {
		return keyFault(err, k)
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
	now := s.now()
	g, err := s.store.Grant(ctx, token, now)
	if errors.Is(err, ErrNotFound) || err == nil && !g.Key.Usable(now) {
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
		return Key{}, fault.Errorf(fault.NotFound, "key %s not found", shown(ref))
	}
	return k, err
}

// public is what an id or a token of a key looks like.
var public = regexp.MustCompile(`^(key_[0-9a-z]{26}|[0-9a-f]{64})$`)

// shown is what an error may say of a reference: a caller may have sent a secret.
func shown(ref string) string {
	if public.MatchString(ref) {
		return ref
	}
	return "of this name"
}
