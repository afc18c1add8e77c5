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
					Attributes:     key.Attributes{UserID: "sess-1", TeamID: fmt.Sprintf("org-%d", n%2)},
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
