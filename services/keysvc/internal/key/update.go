package key

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
)

// Update says what changes about a key: the attributes that Fields names, and
// nothing else. "limits" stands for all limits, "limits.x" for one.
type Update struct {
	Fields     []string
	Attributes Attributes
}

// UpdateKey changes a key and returns it with the revision from which on
// watchers follow. An update that changes nothing is no change.
func (s *Service) UpdateKey(ctx context.Context, by Caller, ref string, u Update) (Key, int64, error) {
	if len(u.Fields) == 0 {
		return Key{}, 0, fault.Errorf(fault.Invalid, "update_mask is required: name what changes")
	}
	k, err := s.Key(ctx, ref)
	if err != nil {
		return Key{}, 0, err
	}
	var revision int64
	err = s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		before, err := lockLive(ctx, tx, k.KeyID, u)
		if err != nil {
			return err
		}
		now := s.now()
		if k, err = s.changed(ctx, tx, before, u, now); err != nil {
			return err
		}
		if same(before, k) {
			k = before
			revision, err = tx.Revision(ctx)
			return err
		}
		k.UpdatedAt = now
		if err := write(ctx, tx, by, "key.update", before, k); err != nil {
			return err
		}
		e := Event{KeyIDs: []string{k.KeyID}, At: now}
		if k.Blocked && !before.Blocked {
			e.Stopped, e.Reason = true, "blocked"
		}
		revision, err = tx.Append(ctx, e)
		return err
	})
	return k, revision, err
}

// lockLive locks a key that must not be revoked, and first the team that the
// update, if it does, moves it to.
func lockLive(ctx context.Context, tx Tx, keyID string, u Update) (Key, error) {
	if slices.Contains(u.Fields, "team_id") {
		if err := tx.Hold(ctx, Hold{TeamID: u.Attributes.TeamID}); err != nil {
			return Key{}, err
		}
	}
	keys, err := tx.LockKeys(ctx, Selection{KeyIDs: []string{keyID}})
	if err != nil {
		return Key{}, err
	}
	if len(keys) == 0 || !keys[0].Live() { // rows are never deleted by this service
		return Key{}, fault.Errorf(fault.Precondition, "key %s is revoked", keyID)
	}
	return keys[0], nil
}

// changed is the key after the update, which must be one that could be made.
// Only what is named must keep to the bounds: they may have come after the key.
func (s *Service) changed(ctx context.Context, tx Tx, k Key, u Update, now time.Time) (Key, error) {
	teamID := k.TeamID
	for _, field := range u.Fields {
		if err := k.set(field, u.Attributes, now); err != nil {
			return k, err
		}
	}
	if err := s.bound(&k, u, now); err != nil {
		return k, err
	}
	if err := k.attributes().validate(); err != nil {
		return k, err
	}
	if k.TeamID != teamID && k.TeamID != "" {
		return k, needTeam(ctx, tx, k.TeamID)
	}
	return k, nil
}

// set copies the attribute that the field stands for.
func (k *Key) set(field string, a Attributes, now time.Time) error {
	switch field {
	case "key_alias":
		k.KeyAlias = a.KeyAlias
	case "team_id":
		k.TeamID = a.TeamID
	case "user_id":
		if k.UserID != a.UserID { // another session's idempotency keys are others
			k.UserID, k.IdempotencyKey = a.UserID, ""
		}
	case "models":
		k.Models = list(a.Models)
	case "tags":
		k.Tags = list(a.Tags)
	case "aliases":
		k.Aliases = names(a.Aliases)
	case "allowed_cidrs":
		k.AllowedCIDRs = networks(a.AllowedCIDRs)
	case "allowed_routes":
		k.AllowedRoutes = list(a.AllowedRoutes)
	case "blocked":
		k.Blocked = a.Blocked
	case "duration":
		return k.live(a.Duration, now)
	default:
		return setShared(field, shared{&k.Limits, &k.Metadata}, shared{&a.Limits, &a.Metadata})
	}
	return nil
}

// shared is what both keys and teams have.
type shared struct {
	limits   *Limits
	metadata *json.RawMessage
}

// setShared copies the limits or metadata that the field stands for. A mask
// that the gateway made from a body names the leaves of the metadata, which
// change as a whole.
func setShared(field string, to, from shared) error {
	limit, ok := strings.CutPrefix(field, "limits.")
	switch {
	case field == "limits":
		*to.limits = *from.limits
	case field == "metadata" || strings.HasPrefix(field, "metadata."):
		if m := object(*from.metadata); !sameJSON(m, *to.metadata) {
			*to.metadata = m
		}
	case !ok || !to.limits.set(limit, *from.limits):
		return fault.Errorf(fault.Invalid, "update_mask: %q cannot be changed", field)
	}
	return nil
}

// bound fills what the update cleared with the bounds, and refuses what it set
// over them.
func (s *Service) bound(k *Key, u Update, now time.Time) error {
	b := s.policy.Bounds
	if slices.Contains(u.Fields, "duration") {
		if err := b.checkDuration(u.Attributes.Duration); err != nil {
			return err
		}
		if k.Duration == "" && b.Duration != "" {
			if err := k.live(b.Duration, now); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(u.Fields, func(f string) bool { return f == "limits" || strings.HasPrefix(f, "limits.") }) {
		k.Limits = b.fill(k.Limits)
		return b.check(k.Limits)
	}
	return nil
}

// same says whether an update left a key or a team as it was.
func same[T Key | Team](before, after T) bool {
	a, errA := json.Marshal(before)
	b, errB := json.Marshal(after)
	return errA == nil && errB == nil && string(a) == string(b)
}

// sameJSON says whether two documents differ in their form at most.
func sameJSON(a, b json.RawMessage) bool {
	var docA, docB any
	errA, errB := json.Unmarshal(a, &docA), json.Unmarshal(b, &docB)
	return errA == nil && errB == nil && reflect.DeepEqual(docA, docB)
}

// write writes a changed key and its audit row.
func write(ctx context.Context, tx Tx, by Caller, action string, before, after Key) error {
	if err := tx.UpdateKeys(ctx, []Key{after}); err != nil {
		return keyFault(err, after)
	}
	return tx.Audit(ctx, Change{By: by, At: after.UpdatedAt, Action: action, Entity: after.KeyID, Before: before, After: after})
}

// keyFault names what stands in the way of a key.
func keyFault(err error, k Key) error {
	switch {
	case errors.Is(err, ErrAliasTaken):
		return fault.Errorf(fault.Exists,
			"Key with alias '%s' already exists. Unique key aliases across all keys are required.", k.KeyAlias)
	case errors.Is(err, ErrNoTeam):
		return errNoTeam(k.TeamID)
	}
	return err
}

func errNoTeam(teamID string) error {
	return fault.Errorf(fault.NotFound, "team %s not found; make it with EnsureTeam first", teamID)
}

// needTeam refuses a team that is unknown or deleted. The caller holds it.
func needTeam(ctx context.Context, tx Tx, teamID string) error {
	ok, err := tx.HasTeam(ctx, teamID)
	if err == nil && !ok {
		return errNoTeam(teamID)
	}
	return err
}
