package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

func TestAnAliasIsUniqueAmongLiveKeys(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.create(t, key.Attributes{KeyAlias: "x"})
	_, err := b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: key.Attributes{KeyAlias: "x"}})
	wantFault(t, err, fault.Exists, "Key with alias 'x' already exists. Unique key aliases across all keys are required.")
	b.revoke(t, key.Selection{KeyAliases: []string{"x"}})
	b.wantUsable(t, first, false)
	b.create(t, key.Attributes{KeyAlias: "x"})
	b.create(t, key.Attributes{}) // no alias is no name that could be taken
	b.create(t, key.Attributes{})
}

func TestCreateKeyNeedsAKnownTeam(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	_, err := b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: key.Attributes{TeamID: "org-9"}})
	wantFault(t, err, fault.NotFound, "team org-9 not found; make it with EnsureTeam first")
}

func TestAKeyIsFoundByIDTokenAndAlias(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	gone := b.create(t, key.Attributes{KeyAlias: "x"})
	b.revoke(t, key.Selection{KeyIDs: []string{gone.Key.KeyID}})
	live := b.create(t, key.Attributes{KeyAlias: "x"})
	find := func(ref, want string) {
		t.Helper()
		k, err := b.Key(t.Context(), ref)
		if err != nil || k.KeyID != want {
			t.Errorf("Key(%q) = %s, %v, want %s", ref, k.KeyID, err, want)
		}
	}
	find(gone.Key.KeyID, gone.Key.KeyID)
	find(gone.Key.Token, gone.Key.KeyID)
	find("x", live.Key.KeyID)
	b.revoke(t, key.Selection{KeyIDs: []string{live.Key.KeyID}})
	find("x", live.Key.KeyID) // none is live: the newest
	impostor := b.create(t, key.Attributes{KeyAlias: live.Key.KeyID})
	find(live.Key.KeyID, live.Key.KeyID) // an id wins over an alias that looks like it
	find(impostor.Key.Token, impostor.Key.KeyID)
	_, err := b.Key(t.Context(), "y")
	wantFault(t, err, fault.NotFound, "key of this name not found")
}

func TestBlockAndUnblockCanBeRepeated(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.create(t, key.Attributes{KeyAlias: "x"})
	for range 2 {
		if k, err := b.BlockKey(t.Context(), admin, "x"); err != nil || !k.Blocked {
			t.Fatalf("block = %+v, %v", k, err)
		}
		b.wantUsable(t, c, false)
	}
	for range 2 {
		if k, err := b.UnblockKey(t.Context(), admin, c.Key.Token); err != nil || k.Blocked {
			t.Fatalf("unblock = %+v, %v", k, err)
		}
		b.wantUsable(t, c, true)
	}
	type change struct {
		Stopped bool
		Reason  string
	}
	var got []change
	for _, e := range b.events(t, 0) {
		got = append(got, change{e.Stopped, e.Reason})
	}
	if diff := cmp.Diff([]change{{true, "blocked"}, {false, ""}}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	b.revoke(t, key.Selection{KeyAliases: []string{"x"}})
	_, err := b.UnblockKey(t.Context(), admin, "x")
	wantFault(t, err, fault.Precondition, "key "+c.Key.KeyID+" is revoked")
}

func TestRevokeFindsKeysByEveryName(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure(t, "org-1")
	byID := b.create(t, key.Attributes{})
	byAlias := b.create(t, key.Attributes{KeyAlias: "x"})
	byToken := b.create(t, key.Attributes{})
	ofUser := b.create(t, key.Attributes{UserID: "sess-1"})
	ofTeam := b.create(t, key.Attributes{TeamID: "org-1"})
	kept := b.create(t, key.Attributes{UserID: "sess-2"})
	sel := key.Selection{
		KeyIDs: []string{byID.Key.KeyID, "key_unknown"}, KeyAliases: []string{"x", "unknown"},
		Tokens: []string{byToken.Key.Token}, UserID: "sess-1", TeamID: "org-1",
	}
	keys, revision := b.revoke(t, sel)
	wantIDs(t, "revoked", keys, byID.Key.KeyID, byAlias.Key.KeyID, byToken.Key.KeyID, ofUser.Key.KeyID, ofTeam.Key.KeyID)
	for _, k := range keys {
		if k.Live() {
			t.Errorf("%s was returned as live", k.KeyID)
		}
	}
	for _, c := range []key.Created{byID, byAlias, byToken, ofUser, ofTeam} {
		b.wantUsable(t, c, false)
	}
	b.wantUsable(t, kept, true)
	events := b.events(t, 0)
	if len(events) != 1 || events[0].Revision != revision || !events[0].Stopped || events[0].Reason != "revoked" {
		t.Errorf("events = %+v, want one that stops, with revision %d", events, revision)
	}
	again, same := b.revoke(t, sel)
	wantIDs(t, "revoked before", again, byID.Key.KeyID, byAlias.Key.KeyID, byToken.Key.KeyID)
	if same != revision || len(b.events(t, 0)) != 1 {
		t.Errorf("the repeat moved the revision from %d to %d", revision, same)
	}
	if diff := cmp.Diff(keys[0], again[0]); diff != "" {
		t.Errorf("the repeat changed a key (-first +repeat):\n%s", diff)
	}
}

func TestRevokeSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.issue(t, "sess-1", "")
	b.revoke(t, key.Selection{UserID: "sess-1"})
	for _, known := range []key.Selection{{UserID: "sess-1"}, {TeamID: "org-1"}} {
		if keys, revision := b.revoke(t, known); len(keys) != 0 || revision != 1 {
			t.Errorf("revoke %+v again = %v, %d, want no keys and revision 1", known, ids(keys), revision)
		}
	}
	for _, unknown := range []key.Selection{{UserID: "sess-9"}, {TeamID: "org-9"}, {KeyIDs: []string{"key_9"}}, {KeyAliases: []string{"y"}}} {
		_, _, err := b.RevokeKeys(t.Context(), admin, unknown)
		wantFault(t, err, fault.NotFound, "none of the keys, sessions and teams that were named exists")
	}
	_, _, err := b.RevokeKeys(t.Context(), admin, key.Selection{})
	wantFault(t, err, fault.Invalid, "name at least one of key_ids, key_aliases, tokens, user_id and team_id")
}

func TestVerifyRefusesAllKeysWithOneAnswer(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, token := range []string{"", "sk-x", "ABCDEF", "0000000000000000000000000000000000000000000000000000000000000000"} {
		_, err := b.VerifyKey(t.Context(), token)
		wantFault(t, err, fault.Unauthenticated, "invalid api key")
	}
	b.wantUsable(t, b.create(t, key.Attributes{Duration: "0s"}), false)
	c := b.create(t, key.Attributes{Duration: "1h"})
	b.wantUsable(t, c, true)
	g, err := b.VerifyKey(t.Context(), c.Key.Token)
	if err != nil || g.Team != nil {
		t.Errorf("grant of a key without a team = %+v, %v, want no team", g, err)
	}
}
