package store_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

func (b bundle) rotate(t *testing.T, r key.RotateRequest) key.Created {
	t.Helper()
	out, err := b.RotateKey(t.Context(), admin, r)
	if err != nil {
		t.Fatalf("rotate %+v: %v", r, err)
	}
	return key.Created{Key: out.Key, Secret: out.Secret}
}

func TestRotationKeepsTheKeyAndItsGrace(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.create(t, key.Attributes{KeyAlias: "x", Limits: everyLimit()})
	out, err := b.RotateKey(t.Context(), admin, key.RotateRequest{Ref: "x", GracePeriod: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	second := key.Created{Key: out.Key, Secret: out.Secret}
	same := cmpopts.IgnoreFields(key.Key{}, "Token", "KeyName", "UpdatedAt", "RotatedAt")
	if diff := cmp.Diff(first.Key, second.Key, same); diff != "" {
		t.Errorf("the rotation changed the key (-before +after):\n%s", diff)
	}
	if !out.Key.UpdatedAt.Equal(*out.Key.RotatedAt) {
		t.Errorf("updated at %s, rotated at %s", out.Key.UpdatedAt, out.Key.RotatedAt)
	}
	b.wantUsable(t, first, true)
	b.wantUsable(t, second, true)
	g, err := b.VerifyKey(t.Context(), first.Key.Token)
	if err != nil || g.SecretExpiresAt == nil || !g.SecretExpiresAt.Equal(*out.GraceEndsAt) || g.Key.Token != second.Key.Token {
		t.Errorf("grant of the old secret = %+v, %v, want the key as it is and the end of the grace", g, err)
	}
	for _, ref := range []string{first.Key.Token, second.Key.Token} {
		if k, err := b.Key(t.Context(), ref); err != nil || k.KeyID != first.Key.KeyID {
			t.Errorf("Key(%s) = %s, %v", ref, k.KeyID, err)
		}
	}
	// Without a grace all that was before ends.
	third := b.rotate(t, key.RotateRequest{Ref: first.Key.Token})
	for c, usable := range map[*key.Created]bool{&first: false, &second: false, &third: true} {
		b.wantUsable(t, *c, usable)
	}
	ids, none := []string{first.Key.KeyID}, []string{}
	want := []key.Event{
		{Revision: 1, KeyIDs: ids, TeamIDs: none},
		{Revision: 2, KeyIDs: ids, TeamIDs: none, Stopped: true, Reason: "revoked"},
	}
	if diff := cmp.Diff(want, b.events(t, 0), cmpopts.IgnoreFields(key.Event{}, "At")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// Whoever knows any of its secrets can end the key.
	if keys, _ := b.revoke(t, key.Selection{Tokens: []string{first.Key.Token}}); len(keys) != 1 {
		t.Errorf("revoked by an old token: %v", keys)
	}
	b.wantUsable(t, third, false)
}

func TestARepeatedRotationLeavesOneSecretAndTheGrace(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.create(t, key.Attributes{})
	r := key.RotateRequest{Ref: first.Key.KeyID, GracePeriod: "1h", IdempotencyKey: "r-1"}
	lost := b.rotate(t, r)
	out, err := b.RotateKey(t.Context(), admin, r)
	if err != nil || out.GraceEndsAt == nil {
		t.Fatalf("the repeat = %+v, %v, want the grace of the first call", out, err)
	}
	again := key.Created{Key: out.Key, Secret: out.Secret}
	b.wantUsable(t, first, true)
	b.wantUsable(t, lost, false)
	b.wantUsable(t, again, true)
	if n := column[int](t, b, `select count(*) from keys.old_secrets where ends_at > now()`); n[0] != 1 {
		t.Errorf("%d old secrets work, want 1", n[0])
	}
	if k, err := b.Key(t.Context(), lost.Key.Token); err != nil || k.KeyID != first.Key.KeyID {
		t.Errorf("the key by the lost token = %s, %v", k.KeyID, err)
	}
	r.IdempotencyKey = "r-2"
	next := b.rotate(t, r)
	b.wantUsable(t, again, true)
	b.wantUsable(t, next, true)
}

// In a rolling update, processes of the release before rotate keys on the same schema:
// they write the name of an old secret, and read it of all.
func TestAReleaseThatNamesOldSecretsRotatesBesideThisOne(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.create(t, key.Attributes{})
	b.rotate(t, key.RotateRequest{Ref: first.Key.KeyID, GracePeriod: "1h"})
	if _, err := b.db.Exec(t.Context(), `
		insert into keys.old_secrets (token, key_id, key_name, rotated_at, ends_at, announced)
		values (repeat('0', 64), $1, 'sk-...abcd', now(), now() + interval '1 hour', false)`, first.Key.KeyID); err != nil {
		t.Fatal(err)
	}
	names := column[string](t, b, `select key_name from keys.old_secrets where ends_at > now() order by rotated_at`)
	if diff := cmp.Diff([]string{"", "sk-...abcd"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	b.rotate(t, key.RotateRequest{Ref: first.Key.KeyID})
	b.wantUsable(t, first, false)
	if n := column[int](t, b, `select count(*) from keys.old_secrets where ends_at > now()`); n[0] != 0 {
		t.Errorf("%d old secrets work, want none", n[0])
	}
}

func TestOldSecretsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	k := b.create(t, key.Attributes{}).Key
	for range 5 {
		b.rotate(t, key.RotateRequest{Ref: k.KeyID, GracePeriod: "1h"})
	}
	_, err := b.RotateKey(t.Context(), admin, key.RotateRequest{Ref: k.KeyID, GracePeriod: "1h"})
	wantFault(t, err, fault.Precondition,
		"5 old secrets of key "+k.KeyID+" are in their grace; wait, or rotate without a grace, which ends them")
	b.rotate(t, key.RotateRequest{Ref: k.KeyID})
	if n := column[int](t, b, `select count(*) from keys.old_secrets where ends_at > now()`); n[0] != 0 {
		t.Errorf("%d old secrets work, want none", n[0])
	}
	_, err = b.RotateKey(t.Context(), admin, key.RotateRequest{Ref: k.KeyID, GracePeriod: "soon"})
	wantFault(t, err, fault.Invalid, `grace_period: Unsupported duration unit, passed duration: "soon"; use a number and s, m, h, d, w or mo, such as 24h`)
}

func TestOnlyLiveKeysAreRotated(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	expired := b.create(t, key.Attributes{Duration: "0s"}).Key.KeyID
	_, err := b.RotateKey(t.Context(), admin, key.RotateRequest{Ref: expired})
	wantFault(t, err, fault.Precondition, "key "+expired+" is expired")
	longer := key.Update{Fields: []string{"duration"}, Attributes: key.Attributes{Duration: "1h"}}
	b.wantUsable(t, b.rotate(t, key.RotateRequest{Ref: expired, Update: longer}), true)
	b.revoke(t, key.Selection{KeyIDs: []string{expired}})
	_, err = b.RotateKey(t.Context(), admin, key.RotateRequest{Ref: expired})
	wantFault(t, err, fault.Precondition, "key "+expired+" is revoked")
}

// Issuers, rotators and a revoker work on one session while observers look: at
// no instant has it more than one live key, and in the end the last secret that
// was handed out for the live key is the only one that works.
func TestIssueRotateAndRevokeLeaveOneLiveKeyAtMost(t *testing.T) {
	t.Parallel()
	const calls = 12
	b := newBundle(t)
	b.issue(t, "sess-1", "")
	done := make(chan struct{})
	var watching, working errgroup.Group
	for range 3 {
		watching.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				var live, secrets int
				err := b.db.QueryRow(t.Context(), `
					select count(*), (select count(*) from keys.old_secrets s join keys.keys k using (key_id)
						where k.revoked_at is null and s.ends_at > clock_timestamp())
					from keys.keys where user_id = 'sess-1' and revoked_at is null`).Scan(&live, &secrets)
				if err != nil {
					return err
				}
				if live > 1 || secrets > 0 {
					return fmt.Errorf("%d live keys, %d old secrets, want 1 and 0 at most", live, secrets)
				}
			}
		})
	}
	for i := range 4 {
		working.Go(func() error {
			for n := range calls {
				asked := n / 2 * (i % 2)
				_, err := b.IssueSessionKey(t.Context(), admin, key.IssueRequest{
					Attributes:     key.Attributes{UserID: "sess-1", TeamID: fmt.Sprintf("org-%d", asked%2)},
					IdempotencyKey: fmt.Sprintf("idem-%d", asked),
				})
				if err != nil {
					return fmt.Errorf("issue: %w", err)
				}
			}
			return nil
		})
		working.Go(func() error {
			for n := range calls {
				keys, err := b.Keys(t.Context(), key.ListRequest{Filter: key.Filter{UserID: "sess-1"}})
				if err != nil {
					return err
				}
				for _, k := range keys.Items {
					_, err := b.RotateKey(t.Context(), admin, key.RotateRequest{Ref: k.KeyID, IdempotencyKey: fmt.Sprint(n / 2)})
					if err != nil && fault.KindOf(err) != fault.Precondition { // revoked meanwhile
						return fmt.Errorf("rotate: %w", err)
					}
				}
			}
			return nil
		})
	}
	working.Go(func() error {
		for range calls {
			if _, _, err := b.RevokeKeys(t.Context(), admin, key.Selection{UserID: "sess-1"}); err != nil {
				return fmt.Errorf("revoke: %w", err)
			}
		}
		return nil
	})
	if err := working.Wait(); err != nil {
		t.Error(err)
	}
	close(done)
	if err := watching.Wait(); err != nil {
		t.Errorf("observe: %v", err)
	}
	first := b.issue(t, "sess-1", "last")
	last := b.rotate(t, key.RotateRequest{Ref: first.Key.KeyID})
	b.wantUsable(t, first, false)
	b.wantUsable(t, last, true)
}

func TestCreateKeyCanBeRepeated(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure(t, "org-1")
	create := func(userID, idempotencyKey string) (key.Created, error) {
		return b.CreateKey(t.Context(), admin, key.CreateRequest{
			Attributes:     key.Attributes{UserID: userID, TeamID: "org-1", KeyAlias: idempotencyKey + userID},
			IdempotencyKey: idempotencyKey,
		})
	}
	var made [6]key.Created
	for round := range 10 {
		var g errgroup.Group
		for i := range made {
			g.Go(func() (err error) { made[i], err = create("", fmt.Sprintf("c-%d", round)); return err })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		usable := 0
		for _, c := range made {
			if c.Key.KeyID != made[0].Key.KeyID {
				t.Errorf("keys %s and %s were made", made[0].Key.KeyID, c.Key.KeyID)
			}
			if _, err := b.VerifyKey(t.Context(), virtualkey.Token(c.Secret.Reveal())); err == nil {
				usable++
			}
		}
		if usable != 1 {
			t.Errorf("%d secrets work, want 1", usable)
		}
	}
	if c, err := create("sess-1", "c-9"); err != nil || c.Key.KeyID == made[0].Key.KeyID {
		t.Errorf("another session's key = %s, %v, want one of its own", c.Key.KeyID, err)
	}
	b.revoke(t, key.Selection{KeyIDs: []string{made[0].Key.KeyID}})
	if c, err := create("", "c-9"); err != nil || c.Key.KeyID == made[0].Key.KeyID {
		t.Errorf("after the revocation = %s, %v, want a new key", c.Key.KeyID, err)
	}
}
