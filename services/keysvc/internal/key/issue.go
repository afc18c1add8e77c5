package key

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// IssueRequest asks for a session's key.
type IssueRequest struct {
	Attributes // UserID and TeamID are required; KeyAlias is not used
	// TeamAlias names the team if it has to be made.
	TeamAlias string
	// IdempotencyKey: a repeat with the same one and TeamID renews the secret of the
	// key that the first call made. Empty: each call makes a new key.
	IdempotencyKey string
}

// errOtherCall refuses a call that takes the idempotency key of another one, as the
// field shows: it would end the secret of a key that it did not ask for, and get one
// for it. It says nothing about that key.
func errOtherCall(field string) error {
	return fault.Errorf(fault.Precondition,
		"this idempotency key was used for another %s: send what the first call sent, or another idempotency key", field)
}

// IssueSessionKey gives a session its key: it makes the team when that is unknown,
// and ends the session's other keys in the same transaction. However many calls come
// at once, the session has exactly one live key from the first of them on, until that
// is revoked or CreateKey makes it another. A team that was deleted gets none: a call
// that comes late must not bring it back.
func (s *Service) IssueSessionKey(ctx context.Context, by Caller, r IssueRequest) (Created, error) {
	r.KeyAlias, r.Blocked = "", false
	var err error
	if r.Attributes, err = s.policy.complete(r.Attributes, true); err != nil {
		return Created{}, err
	}
	if err := r.validate(); err != nil {
		return Created{}, err
	}
	var c Created
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		hold := Hold{TeamID: r.TeamID, UserID: r.UserID, IdempotencyKey: r.IdempotencyKey}
		if err := tx.Hold(ctx, hold); err != nil {
			return err
		}
		keys, err := tx.LockKeys(ctx, Selection{UserID: r.UserID})
		if err != nil {
			return err
		}
		now := s.now() // after the wait for the lock, so that ids follow the order of the changes
		if k, ok := r.repeated(keys, now); ok {
			if k.TeamID != r.TeamID {
				return errOtherCall("team_id")
			}
			c.Key = k
			if _, _, err := revoke(ctx, tx, by, others(keys, k), now); err != nil {
				return err
			}
			return s.renew(ctx, tx, by, &c, now)
		}
		if c.Key, err = r.new(now); err != nil {
			return err
		}
		c.Key.IdempotencyKey = r.IdempotencyKey
		c.renew()
		return s.replace(ctx, tx, by, c.Key, r.TeamAlias, keys)
	})
	return c, err
}

func (r IssueRequest) validate() error {
	for _, err := range []error{
		needText("user_id", r.UserID, longestID),
		needText("team_id", r.TeamID, longestID),
		checkText("team_alias", r.TeamAlias, longestName),
		checkText("idempotency_key", r.IdempotencyKey, longestName),
		r.Attributes.validate(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// repeated finds the key that an earlier call with the same idempotency key
// made, unless its life is over.
func (r IssueRequest) repeated(keys []Key, now time.Time) (Key, bool) {
	for _, k := range keys {
		if r.IdempotencyKey != "" && k.IdempotencyKey == r.IdempotencyKey && k.Live() && !k.Expired(now) {
			return k, true
		}
	}
	return Key{}, false
}

// others are the keys but one.
func others(keys []Key, one Key) []Key {
	var out []Key
	for _, k := range keys {
		if k.KeyID != one.KeyID {
			out = append(out, k)
		}
	}
	return out
}

// renew gives the key of c a new secret, which is then its only one.
func (s *Service) renew(ctx context.Context, tx Tx, by Caller, c *Created, now time.Time) error {
	before := c.Key
	c.renew()
	c.Key.UpdatedAt = now
	if err := tx.EndOldSecrets(ctx, c.Key.KeyID, now); err != nil {
		return err
	}
	if err := tx.KeepOldSecret(ctx, before.oldSecret(now), now); err != nil {
		return err
	}
	if err := write(ctx, tx, by, "key.renew", before, c.Key); err != nil {
		return err
	}
	_, err := tx.Append(ctx, Event{KeyIDs: []string{c.Key.KeyID}, At: now})
	return err
}

// replace makes the key, and its team when that is unknown, and ends the
// session's other keys. The old ones go first: they may hold the same
// idempotency key.
func (s *Service) replace(ctx context.Context, tx Tx, by Caller, k Key, teamAlias string, keys []Key) error {
	team := TeamAttributes{TeamID: k.TeamID, TeamAlias: teamAlias}.new(k.CreatedAt)
	inserted, err := ensure(ctx, tx, by, team)
	if err != nil {
		return err
	}
	if inserted == WasDeleted {
		return errNoTeam(k.TeamID)
	}
	ended, err := end(ctx, tx, by, keys, k.CreatedAt)
	if err != nil {
		return err
	}
	if err := insert(ctx, tx, by, "key.issue", k); err != nil {
		return err
	}
	_, err = announce(ctx, tx, ended, Event{Stopped: true, Reason: "revoked", At: k.CreatedAt})
	return err
}
