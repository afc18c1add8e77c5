package key

import (
	"context"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// mostOldSecrets bounds the secrets of a key that work at once, besides its own.
const mostOldSecrets = 5

// OldSecret is a secret that was rotated away. It works until EndsAt. It is
// never forgotten, so that a key is found by every token it ever had.
type OldSecret struct {
	Token, KeyID string
	EndsAt       time.Time
}

// oldSecret is the key's secret as one that ends at once.
func (k Key) oldSecret(now time.Time) OldSecret {
	return OldSecret{Token: k.Token, KeyID: k.KeyID, EndsAt: now}
}

// RotateRequest asks for a new secret of a key.
type RotateRequest struct {
	Ref string // id, token or alias
	// GracePeriod is how long the old secret still works, in LiteLLM's grammar.
	// Empty: not at all.
	GracePeriod string
	// IdempotencyKey: a repeat of the key's last rotation with the same one
	// replaces that rotation's secret. Empty: each call rotates.
	IdempotencyKey string
	Update         Update // what else changes; no fields: nothing
}

// Rotated is a key with a new secret.
type Rotated struct {
	Key         Key
	Secret      secret.String
	GraceEndsAt *time.Time // nil: the secret before has ended
	Revision    int64
}

// RotateKey gives a key a new secret. Whatever is repeated, the key has one
// secret and those whose grace was asked for.
func (s *Service) RotateKey(ctx context.Context, by Caller, r RotateRequest) (Rotated, error) {
	grace, err := r.validate()
	if err != nil {
		return Rotated{}, err
	}
	k, err := s.Key(ctx, r.Ref)
	if err != nil {
		return Rotated{}, err
	}
	var out Rotated
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		before, err := lockLive(ctx, tx, k.KeyID, r.Update)
		if err != nil {
			return err
		}
		now := s.now()
		changed, err := s.changed(ctx, tx, before, r.Update, now)
		if err != nil {
			return err
		}
		if changed.Expired(now) {
			return fault.Errorf(fault.Precondition, "key %s is expired", k.KeyID)
		}
		if out.GraceEndsAt, err = r.retire(ctx, tx, before, grace, now); err != nil {
			return err
		}
		c := Created{Key: changed}
		c.renew()
		c.Key.UpdatedAt, c.Key.RotatedAt, c.Key.RotationKey = now, &now, r.IdempotencyKey
		out.Key, out.Secret = c.Key, c.Secret
		if err := write(ctx, tx, by, "key.rotate", before, c.Key); err != nil {
			return err
		}
		out.Revision, err = tx.Append(ctx, rotation(c.Key, before, out.GraceEndsAt == nil))
		return err
	})
	return out, err
}

// rotation is the event of a rotation. Without a grace nobody may go on with
// what the old secret began.
func rotation(k, before Key, ended bool) Event {
	e := Event{KeyIDs: []string{k.KeyID}, At: k.UpdatedAt}
	switch {
	case k.Blocked && !before.Blocked:
		e.Stopped, e.Reason = true, "blocked"
	case ended:
		e.Stopped, e.Reason = true, "revoked"
	}
	return e
}

func (r RotateRequest) validate() (Duration, error) {
	if err := checkText("idempotency_key", r.IdempotencyKey, longestName); err != nil || r.GracePeriod == "" {
		return Duration{}, err
	}
	grace, err := ParseDuration(r.GracePeriod)
	if err != nil {
		return Duration{}, fault.Errorf(fault.Invalid, "grace_period: %s", fault.Text(err))
	}
	return grace, nil
}

// retire decides what becomes of the key's secret, and returns when the newest
// old one ends. One that a repeated rotation made has no grace: nobody may have
// received it.
func (r RotateRequest) retire(ctx context.Context, tx Tx, k Key, grace Duration, now time.Time) (*time.Time, error) {
	graces, err := tx.Graces(ctx, k.KeyID, now)
	if err != nil {
		return nil, err
	}
	gone := k.oldSecret(now)
	repeated := r.IdempotencyKey != "" && r.IdempotencyKey == k.RotationKey
	switch {
	case repeated && len(graces) > 0:
		return &graces[0], tx.KeepOldSecret(ctx, gone, now)
	case repeated:
		return nil, tx.KeepOldSecret(ctx, gone, now)
	case grace == (Duration{}):
		if err := tx.EndOldSecrets(ctx, k.KeyID, now); err != nil {
			return nil, err
		}
		return nil, tx.KeepOldSecret(ctx, gone, now)
	case len(graces) >= mostOldSecrets:
		return nil, fault.Errorf(fault.Precondition,
			"%d old secrets of key %s are in their grace; wait, or rotate without a grace, which ends them", len(graces), k.KeyID)
	}
	if gone.EndsAt, err = grace.After(now); err != nil {
		return nil, fault.Errorf(fault.Invalid, "grace_period: %s", fault.Text(err))
	}
	return &gone.EndsAt, tx.KeepOldSecret(ctx, gone, now)
}
