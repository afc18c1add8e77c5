package key

import "context"

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
		before, err := lockLive(ctx, tx, k.KeyID, Update{})
		if err != nil {
			return err
		}
		if k = before; k.Blocked == blocked {
			return nil
		}
		k.Blocked, k.UpdatedAt = blocked, s.now()
		action, event := "key.unblock", Event{KeyIDs: []string{k.KeyID}, At: k.UpdatedAt}
		if blocked {
			action, event.Stopped, event.Reason = "key.block", true, "blocked"
		}
		if err := write(ctx, tx, by, action, before, k); err != nil {
			return err
		}
		_, err = tx.Append(ctx, event)
		return err
	})
	return k, err
}
