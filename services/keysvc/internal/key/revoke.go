package key

import (
	"context"
	"slices"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// RevokeKeys ends keys for good. It returns them, together with those that
// had ended before, and the revision from which on no watcher takes them. What
// is unknown is ignored unless it is all that was named.
func (s *Service) RevokeKeys(ctx context.Context, by Caller, sel Selection) ([]Key, int64, error) {
	if err := sel.validate(); err != nil {
		return nil, 0, err
	}
	var (
		keys     []Key
		revision int64
	)
	err := s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		if sel.UserID != "" {
			if err := tx.Hold(ctx, Hold{UserID: sel.UserID}); err != nil {
				return err
			}
		}
		found, err := tx.LockKeys(ctx, sel)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			ok, err := tx.Exists(ctx, sel.UserID, sel.TeamID)
			if err != nil {
				return err
			}
			if !ok {
				return fault.Errorf(fault.NotFound, "none of the keys, sessions and teams that were named exists")
			}
		}
		keys, revision, err = revoke(ctx, tx, by, found, s.now())
		return err
	})
	return keys, revision, err
}

func (sel Selection) validate() error {
	if len(sel.KeyIDs)+len(sel.KeyAliases)+len(sel.Tokens) == 0 && sel.UserID == "" && sel.TeamID == "" {
		return fault.Errorf(fault.Invalid, "name at least one of key_ids, key_aliases, tokens, user_id and team_id")
	}
	for _, err := range []error{
		checkList("key_ids", sel.KeyIDs, mostNamed),
		checkList("key_aliases", sel.KeyAliases, mostNamed),
		checkList("tokens", sel.Tokens, mostNamed),
		checkText("user_id", sel.UserID, longestID),
		checkText("team_id", sel.TeamID, longestID),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// revoke ends the keys that are live, announces it, and returns all keys as
// they are then, with the revision of the change, or the newest one if nothing
// changed.
func revoke(ctx context.Context, tx Tx, by Caller, keys []Key, now time.Time) ([]Key, int64, error) {
	ended, err := end(ctx, tx, by, keys, now)
	if err != nil {
		return nil, 0, err
	}
	if len(ended) == 0 {
		revision, err := tx.Revision(ctx)
		return keys, revision, err
	}
	revision, err := announce(ctx, tx, ended, Event{Stopped: true, Reason: "revoked", At: now})
	return keys, revision, err
}

// end revokes those of the keys that are live, in the slice too, and returns
// them; announcing it is left to the caller.
func end(ctx context.Context, tx Tx, by Caller, keys []Key, now time.Time) ([]Key, error) {
	var (
		ended   []Key
		changes []Change
	)
	for i, before := range keys {
		if !before.Live() {
			continue
		}
		keys[i].RevokedAt, keys[i].UpdatedAt = &now, now
		ended = append(ended, keys[i])
		changes = append(changes, Change{
			By: by, At: now, Action: "key.revoke", Entity: before.KeyID, Before: before, After: keys[i],
		})
	}
	if err := tx.UpdateKeys(ctx, ended); err != nil {
		return nil, err
	}
	return ended, tx.Audit(ctx, changes...)
}

// idsPerEvent keeps events far below the largest message of a gRPC client.
const idsPerEvent = 1000

// announce appends the event for the keys, as several events if they are many,
// and returns the last revision; zero when there are no keys.
func announce(ctx context.Context, tx Tx, keys []Key, e Event) (int64, error) {
	var revision int64
	for part := range slices.Chunk(keys, idsPerEvent) {
		e.KeyIDs = nil
		for _, k := range part {
			e.KeyIDs = append(e.KeyIDs, k.KeyID)
		}
		var err error
		if revision, err = tx.Append(ctx, e); err != nil {
			return 0, err
		}
	}
	return revision, nil
}
