package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// all reads a list page by page and checks that each says how many there are.
func (b bundle) all(t *testing.T, r key.ListRequest, size int) []key.Key {
	t.Helper()
	var got []key.Key
	for r.Page, r.Count = (key.Page{Size: size}), true; ; {
		page, err := b.Keys(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Items...)
		if page.Next == "" {
			if *page.Total != int64(len(got)) {
				t.Errorf("total = %d, want %d", *page.Total, len(got))
			}
			return got
		}
		if len(page.Items) != size {
			t.Fatalf("a page of %d keys, want %d", len(page.Items), size)
		}
		r.Page.Token = page.Next
	}
}

func TestKeysAreListedInPages(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.ensure(t, "org-1")
	cent, dollar := money.USD/100, money.USD
	a := b.create(t, key.Attributes{TeamID: "org-1", UserID: "sess-1", Limits: key.Limits{MaxBudgetNanoUSD: &dollar}}).Key
	revoked := b.create(t, key.Attributes{TeamID: "org-1", KeyAlias: "x"}).Key
	b.revoke(t, key.Selection{KeyIDs: []string{revoked.KeyID}})
	expired := b.create(t, key.Attributes{TeamID: "org-1", Duration: "0s"}).Key
	c := b.create(t, key.Attributes{TeamID: "org-1", KeyAlias: "x", Limits: key.Limits{MaxBudgetNanoUSD: &cent}}).Key
	d := b.create(t, key.Attributes{UserID: "sess-1", KeyAlias: "B"}).Key
	blocked := b.create(t, key.Attributes{KeyAlias: `<"é"&>`, Blocked: true}).Key
	if _, _, err := b.UpdateKey(t.Context(), admin, a.KeyID, key.Update{Fields: []string{"tags"}, Attributes: key.Attributes{Tags: []string{"t"}}}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		r    key.ListRequest
		want []key.Key
	}{
		{"keys that have not ended", key.ListRequest{}, []key.Key{blocked, d, c, a}},
		{"all keys", key.ListRequest{Filter: key.Filter{Ended: true}}, []key.Key{blocked, d, c, expired, revoked, a}},
		{"a team's", key.ListRequest{Filter: key.Filter{TeamID: "org-1"}}, []key.Key{c, a}},
		{"a session's", key.ListRequest{Filter: key.Filter{UserID: "sess-1"}}, []key.Key{d, a}},
		{"those with an alias", key.ListRequest{Filter: key.Filter{KeyAlias: "x", Ended: true}}, []key.Key{c, revoked}},
		{"the one with a token", key.ListRequest{Filter: key.Filter{Token: c.Token}}, []key.Key{c}},
		{"nobody's", key.ListRequest{Filter: key.Filter{TeamID: "org-9"}}, nil},
		{"usable ones", key.ListRequest{Filter: key.Filter{State: key.StateActive}}, []key.Key{d, c, a}},
		{"blocked ones", key.ListRequest{Filter: key.Filter{State: key.StateBlocked}}, []key.Key{blocked}},
		{"expired ones", key.ListRequest{Filter: key.Filter{State: key.StateExpired}}, []key.Key{expired}},
		{"revoked ones", key.ListRequest{Filter: key.Filter{State: key.StateRevoked}}, []key.Key{revoked}},
		{"those made from one on", key.ListRequest{Filter: key.Filter{CreatedAfter: c.CreatedAt}}, []key.Key{blocked, d, c}},
		{"those made before one", key.ListRequest{Filter: key.Filter{CreatedBefore: c.CreatedAt}}, []key.Key{a}},
		{"oldest first", key.ListRequest{Ascending: true}, []key.Key{a, c, d, blocked}},
		{"by update", key.ListRequest{Sort: key.ByUpdate}, []key.Key{a, blocked, d, c}},
		{"by update, oldest first", key.ListRequest{Sort: key.ByUpdate, Ascending: true}, []key.Key{c, d, blocked, a}},
		{"by alias", key.ListRequest{Sort: key.ByAlias, Ascending: true, Filter: key.Filter{Ended: true}}, []key.Key{a, expired, blocked, d, revoked, c}},
		{"by alias, last first", key.ListRequest{Sort: key.ByAlias, Filter: key.Filter{Ended: true}}, []key.Key{c, revoked, d, blocked, expired, a}},
		{"by budget", key.ListRequest{Sort: key.ByBudget, Ascending: true}, []key.Key{c, a, d, blocked}},
		{"by budget, largest first", key.ListRequest{Sort: key.ByBudget}, []key.Key{blocked, d, a, c}},
	} {
		for _, size := range []int{1, 2, 5, 0} {
			wantIDs(t, tt.name, b.all(t, tt.r, size), ids(tt.want)...)
		}
	}
	page, err := b.Keys(t.Context(), key.ListRequest{Page: key.Page{Size: 2, Skip: 1}})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "after one that is left out", page.Items, d.KeyID, c.KeyID)
	_, err = b.Keys(t.Context(), key.ListRequest{Sort: key.ByBudget, Page: key.Page{Token: page.Next}})
	wantFault(t, err, fault.Invalid, "page_token is not one that an earlier page of this list gave")
}

func TestTeamsAreFiltered(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, a := range []key.TeamAttributes{{TeamID: "a", TeamAlias: "Acme"}, {TeamID: "b"}, {TeamID: "c"}} {
		if _, _, err := b.EnsureTeam(t.Context(), admin, a); err != nil {
			t.Fatal(err)
		}
	}
	b.create(t, key.Attributes{TeamID: "b", UserID: "sess-1"})
	if _, _, err := b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "b", Status: key.Exhausted}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.DeleteTeam(t.Context(), admin, "c"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		f    key.TeamFilter
		want []string
	}{
		{"all that are not deleted", key.TeamFilter{}, []string{"a", "b"}},
		{"deleted ones too", key.TeamFilter{Deleted: true}, []string{"a", "b", "c"}},
		{"by name", key.TeamFilter{TeamAlias: "Acme"}, []string{"a"}},
		{"by status", key.TeamFilter{Status: key.Exhausted}, []string{"b"}},
		{"by session", key.TeamFilter{UserID: "sess-1"}, []string{"b"}},
	} {
		got, err := b.Teams(t.Context(), tt.f, key.Page{}, true)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, team := range got.Items {
			found = append(found, team.TeamID)
		}
		if diff := cmp.Diff(tt.want, found); diff != "" || *got.Total != int64(len(tt.want)) {
			t.Errorf("%s: total %d (-want +got):\n%s", tt.name, *got.Total, diff)
		}
	}
}

func TestAuditRowsAreListed(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.issue(t, "sess-1", "")
	other := key.Caller{Actor: "gateway", RequestID: "req_2", ChangedBy: "ann"}
	if _, err := b.BlockKey(t.Context(), other, c.Key.KeyID); err != nil {
		t.Fatal(err)
	}
	b.revoke(t, key.Selection{UserID: "sess-1"})
	for _, tt := range []struct {
		name string
		f    key.AuditFilter
		want []string
	}{
		{"all", key.AuditFilter{}, []string{"key.revoke", "key.block", "key.issue", "team.create"}},
		{"of a key", key.AuditFilter{Entity: c.Key.KeyID}, []string{"key.revoke", "key.block", "key.issue"}},
		{"by somebody", key.AuditFilter{Actor: "gateway"}, []string{"key.block"}},
		{"of a call", key.AuditFilter{RequestID: "req_2"}, []string{"key.block"}},
		{"of one kind", key.AuditFilter{Action: "key.issue"}, []string{"key.issue"}},
		{"of all keys", key.AuditFilter{Action: "key."}, []string{"key.revoke", "key.block", "key.issue"}},
		{"since then", key.AuditFilter{Since: c.Key.CreatedAt.Add(time.Microsecond)}, []string{"key.revoke", "key.block"}},
		{"until then", key.AuditFilter{Until: c.Key.CreatedAt.Add(time.Microsecond)}, []string{"key.issue", "team.create"}},
	} {
		var got []string
		var entries []key.Entry
		for page := (key.Page{Size: 1}); ; {
			rows, next, err := b.AuditRows(t.Context(), tt.f, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				got, entries = append(got, r.Action), append(entries, r)
			}
			if page.Token = next; next == "" {
				break
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if tt.name == "by somebody" {
			e := entries[0]
			if e.ChangedBy != "ann" || e.KeyBefore == nil || e.KeyBefore.Blocked || e.KeyAfter == nil || !e.KeyAfter.Blocked || e.TeamAfter != nil {
				t.Errorf("entry = %+v, want a key that is blocked after and not before", e)
			}
		}
		if tt.name == "until then" && (entries[1].TeamAfter == nil || entries[1].TeamBefore != nil || entries[1].KeyAfter != nil) {
			t.Errorf("entry = %+v, want a team that was not before", entries[1])
		}
	}
}

// TestAChangeWithoutItsAuditRowDoesNotHappen lets the audit take nothing more.
func TestAChangeWithoutItsAuditRowDoesNotHappen(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.issue(t, "sess-1", "")
	if _, err := b.db.Exec(t.Context(), `alter table keys.audit add check (id < 3)`); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.RevokeKeys(t.Context(), admin, key.Selection{UserID: "sess-1"}); err == nil {
		t.Error("a key was revoked without an audit row")
	}
	if _, err := b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: key.Attributes{UserID: "sess-2", TeamID: "org-1"}}); err == nil {
		t.Error("a key was made without an audit row")
	}
	b.wantUsable(t, c, true)
	if n := column[int](t, b, `select count(*)::int from keys.keys`); n[0] != 1 {
		t.Errorf("there are %d keys, want 1", n[0])
	}
}
