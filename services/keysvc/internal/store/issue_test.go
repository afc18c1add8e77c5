package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

func TestIssueMakesTheTeamAndStoresWhatItReturns(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	budget, rpm := 5*money.USD, int64(0)
	c, err := b.IssueSessionKey(t.Context(), admin, key.IssueRequest{
		Attributes: key.Attributes{
			KeyAlias: "ignored", UserID: "sess-1", TeamID: "org-1", Models: []string{"claude-sonnet-5"}, Tags: []string{"ci"},
			Limits:   key.Limits{MaxBudgetNanoUSD: &budget, RPMLimit: &rpm, BudgetDuration: "1mo"},
			Metadata: []byte(`{"a": [1, "x"]}`), Duration: "24h",
		},
		TeamAlias: "Acme",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !virtualkey.Valid(c.Secret.Reveal()) || c.Key.Token != virtualkey.Token(c.Secret.Reveal()) {
		t.Error("the secret is not the key's")
	}
	if c.Key.KeyAlias != "" || c.Key.ExpiresAt.Sub(c.Key.CreatedAt).Hours() != 24 {
		t.Errorf("key = %+v, want no alias and 24 hours", c.Key)
	}
	g, err := b.VerifyKey(t.Context(), c.Key.Token)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Key, g.Key); diff != "" {
		t.Errorf("stored key (-returned +stored):\n%s", diff)
	}
	want := &key.Team{
		TeamID: "org-1", TeamAlias: "Acme", Models: []string{}, Metadata: []byte(`{}`), Status: key.Active,
		CreatedAt: c.Key.CreatedAt, UpdatedAt: c.Key.CreatedAt,
	}
	if diff := cmp.Diff(want, g.Team); diff != "" {
		t.Errorf("team (-want +got):\n%s", diff)
	}
}

func TestIssueEndsTheSessionsOtherKeysInOneEvent(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.issue(t, "sess-1", "")
	b.ensure(t, "org-2")
	other := b.create(t, key.Attributes{UserID: "sess-1", TeamID: "org-2"})
	stranger := b.issue(t, "sess-2", "")
	second := b.issue(t, "sess-1", "")
	b.wantUsable(t, first, false)
	b.wantUsable(t, other, false)
	b.wantUsable(t, second, true)
	b.wantUsable(t, stranger, true)
	want := []key.Event{{
		Revision: 1, KeyIDs: []string{first.Key.KeyID, other.Key.KeyID}, TeamIDs: []string{},
		Stopped: true, Reason: "revoked", At: second.Key.CreatedAt,
	}}
	if diff := cmp.Diff(want, b.events(t, 0)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestIssueAgainWithTheSameIdempotencyKeyRenewsTheSecret(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.issue(t, "sess-1", "idem-1")
	again := b.issue(t, "sess-1", "idem-1")
	same := cmpopts.IgnoreFields(key.Key{}, "Token", "KeyName", "UpdatedAt")
	if diff := cmp.Diff(first.Key, again.Key, same); diff != "" {
		t.Errorf("the repeat changed the key (-first +repeat):\n%s", diff)
	}
	b.wantUsable(t, first, false)
	b.wantUsable(t, again, true)
	want := []key.Event{{Revision: 1, KeyIDs: []string{first.Key.KeyID}, TeamIDs: []string{}, At: again.Key.UpdatedAt}}
	if diff := cmp.Diff(want, b.events(t, 0)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if other := b.issue(t, "sess-2", "idem-1"); other.Key.KeyID == first.Key.KeyID {
		t.Error("another session with the same idempotency key got the first one's key")
	}
}

func TestIssueAgainAfterRevocationMakesANewKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	first := b.issue(t, "sess-1", "idem-1")
	b.revoke(t, key.Selection{KeyIDs: []string{first.Key.KeyID}})
	again := b.issue(t, "sess-1", "idem-1")
	if again.Key.KeyID == first.Key.KeyID {
		t.Error("a revoked key was renewed")
	}
	b.wantUsable(t, first, false)
	b.wantUsable(t, again, true)
}

func TestIssueNeedsASessionAndATeam(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for text, a := range map[string]key.Attributes{
		"user_id is required": {TeamID: "org-1"},
		"team_id is required": {UserID: "sess-1"},
	} {
		_, err := b.IssueSessionKey(t.Context(), admin, key.IssueRequest{Attributes: a})
		wantFault(t, err, fault.Invalid, text)
	}
}

// Eight callers issue for one session as fast as they can, some of them as
// repeats, while four observers look.
func TestIssueLeavesExactlyOneLiveKeyAtEveryInstant(t *testing.T) {
	t.Parallel()
	const issuers, calls, observers = 8, 12, 4
	b := newBundle(t)
	b.issue(t, "sess-1", "")
	done := make(chan struct{})
	var watching, issuing errgroup.Group
	for range observers {
		watching.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				var live int
				if err := b.db.QueryRow(t.Context(),
					`select count(*) from keys.keys where user_id = 'sess-1' and revoked_at is null`).Scan(&live); err != nil {
					return err
				}
				if live != 1 {
					return fmt.Errorf("%d live keys, want 1", live)
				}
			}
		})
	}
	for i := range issuers {
		issuing.Go(func() error {
			for n := range calls {
				idempotencyKey := ""
				if i%2 == 0 {
					idempotencyKey = fmt.Sprintf("idem-%d", n/3)
				}
				_, err := b.IssueSessionKey(t.Context(), admin, key.IssueRequest{
					Attributes:     key.Attributes{UserID: "sess-1", TeamID: fmt.Sprintf("org-%d", n/3%2)},
					IdempotencyKey: idempotencyKey,
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := issuing.Wait(); err != nil {
		t.Errorf("issue: %v", err)
	}
	close(done)
	if err := watching.Wait(); err != nil {
		t.Errorf("observe: %v", err)
	}
	last := b.issue(t, "sess-1", "")
	keys, err := b.Keys(t.Context(), key.ListRequest{Filter: key.Filter{UserID: "sess-1"}})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "live keys", keys.Items, last.Key.KeyID)
}

func TestEveryChangeIsAuditedWithoutItsSecret(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.issue(t, "sess-1", "idem-1")
	again := b.issue(t, "sess-1", "idem-1")
	if _, err := b.BlockKey(t.Context(), admin, c.Key.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.UnblockKey(t.Context(), admin, c.Key.KeyID); err != nil {
		t.Fatal(err)
	}
	b.revoke(t, key.Selection{UserID: "sess-1"})
	_, _, err := b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "org-1", Status: key.Blocked})
	if err != nil {
		t.Fatal(err)
	}
	got := column[string](t, b, `
		select concat_ws(' ', actor, request_id, action, before is not null, after is not null) from keys.audit order by id`)
	want := []string{
		"master req_1 team.create f t", "master req_1 key.issue f t", "master req_1 key.renew t t",
		"master req_1 key.block t t", "master req_1 key.unblock t t", "master req_1 key.revoke t t",
		"master req_1 team.status t t",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	for _, row := range column[string](t, b, `select a::text from keys.audit a`) {
		for _, s := range []string{c.Secret.Reveal(), again.Secret.Reveal()} {
			if strings.Contains(row, s) {
				t.Error("an audit row holds a secret")
			}
		}
	}
}

// A repeat gets the key of the call before, so it must be one: for the same session,
// team and alias. What else differs, such as limits, was decided by the first call.
func TestARepeatForSomebodyElseIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure(t, "org-1")
	b.ensure(t, "org-2")
	issue := func(a key.Attributes) (key.Created, error) {
		return b.IssueSessionKey(t.Context(), admin, key.IssueRequest{Attributes: a, IdempotencyKey: "idem-1"})
	}
	create := func(a key.Attributes) (key.Created, error) {
		return b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: a, IdempotencyKey: "idem-2"})
	}
	for _, tt := range []struct {
		name    string
		call    func(key.Attributes) (key.Created, error)
		first   key.Attributes
		others  []key.Attributes
		refusal string
	}{
		{
			"issue", issue,
			key.Attributes{UserID: "sess-1", TeamID: "org-1"},
			[]key.Attributes{{UserID: "sess-1", TeamID: "org-2"}, {UserID: "sess-1", TeamID: "org-3"}},
			"this idempotency key was used for another team_id: send what the first call sent, or another idempotency key",
		},
		{
			"create", create,
			key.Attributes{UserID: "sess-1", TeamID: "org-1", KeyAlias: "x"},
			[]key.Attributes{{UserID: "sess-1", TeamID: "org-2", KeyAlias: "x"}, {UserID: "sess-1", KeyAlias: "x"}},
			"this idempotency key was used for another team_id: send what the first call sent, or another idempotency key",
		},
		{
			"create with a name", create,
			key.Attributes{TeamID: "org-1", KeyAlias: "y"},
			[]key.Attributes{{TeamID: "org-1", KeyAlias: "z"}, {TeamID: "org-1"}},
			"this idempotency key was used for another key_alias: send what the first call sent, or another idempotency key",
		},
	} {
		first, err := tt.call(tt.first)
		if err != nil {
			t.Fatal(err)
		}
		before := column[string](t, b, `select k::text from keys.keys k union all select a::text from keys.audit a`)
		for _, other := range tt.others {
			got, err := tt.call(other)
			wantFault(t, err, fault.Precondition, tt.refusal)
			if got.Key.KeyID != "" || !got.Secret.Empty() {
				t.Errorf("%s as %+v: the refusal comes with the key %s", tt.name, other, got.Key.KeyID)
			}
		}
		if diff := cmp.Diff(before, column[string](t, b, `select k::text from keys.keys k union all select a::text from keys.audit a`)); diff != "" {
			t.Errorf("%s: a refusal changed (-before +after):\n%s", tt.name, diff)
		}
		b.wantUsable(t, first, true)
		again := tt.first
		again.Models, again.Tags, again.Duration = []string{"claude-sonnet-5"}, []string{"again"}, "1h"
		renewed, err := tt.call(again)
		if err != nil || renewed.Key.KeyID != first.Key.KeyID || len(renewed.Key.Models) > 0 {
			t.Errorf("%s again with other limits = %+v, %v, want the first call's key as it was", tt.name, renewed.Key, err)
		}
	}
	// An idempotency key is free again when its key has ended.
	b.revoke(t, key.Selection{UserID: "sess-1"})
	if _, err := issue(key.Attributes{UserID: "sess-1", TeamID: "org-2"}); err != nil {
		t.Errorf("after the end of the key: %v", err)
	}
}
