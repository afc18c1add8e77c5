package key

import (
	"context"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// BlockKey makes a key refuse requests and cuts its streams. To block a
// blocked key changes nothing.
func (s *Service) BlockKey(ctx context.Context, by Caller, ref string) (Key, error) {
	return s.setBlocked(ctx, by, ref, true)
}

// UnblockKey lets a blocked key be used again. To unblock a key that is not
// blocked changes nothing.
func (s *Service) UnblockKey(ctx context.Context, by Caller, ref string) (Key, error) {
	return s.setBlocked(ctx, by, ref, false)
}

func (s *Service) setBlocked(ctx context.Context, by Caller, ref string, blocked bool) (Key, error) {
	k, err := s.Key(ctx, ref)
	if err != nil {
		return Key{}, err
	}
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		keys, err := tx.LockKeys(ctx, Selection{KeyIDs: []string{k.KeyID}})
		if err != nil {
			return err
		}
		if len(keys) == 0 || !keys[0].Live() { // rows are never deleted by this service
			return fault.Errorf(fault.Precondition, "key %s is revoked", k.KeyID)
		}
		if k = keys[0]; k.Blocked == blocked {
			return nil
		}
		before := k
		k.Blocked, k.UpdatedAt = blocked, s.now()
		if err := tx.UpdateKeys(ctx, []Key{k}); err != nil {
			return err
		}
		change := Change{By: by, At: k.UpdatedAt, Action: "key.unblock", Entity: k.KeyID, Before: before, After: k}
		event := Event{KeyIDs: []string{k.KeyID}, At: k.UpdatedAt}
		if blocked {
			change.Action, event.Stopped, event.Reason = "key.block", true, "blocked"
		}
		if err := tx.Audit(ctx, change); err != nil {
			return err
		}
		_, err = tx.Append(ctx, event)
		return err
	})
	return k, err
}
