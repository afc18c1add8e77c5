package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

func TestTeamsAreUpdated(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.issue(t, "sess-1", "")
	a := key.TeamAttributes{TeamID: "org-1", TeamAlias: "Acme", Models: []string{"m"}, Limits: everyLimit(), Metadata: []byte(`{"a": 1}`)}
	u := key.TeamUpdate{Fields: []string{"team_alias", "models", "limits", "metadata"}, Attributes: a}
	for range 2 { // the repeat changes nothing
		team, revision, err := b.UpdateTeam(t.Context(), admin, u)
		if err != nil || revision != 1 {
			t.Fatalf("UpdateTeam = %+v, %d, %v, want revision 1", team, revision, err)
		}
		g, err := b.VerifyKey(t.Context(), c.Key.Token)
		if err != nil {
			t.Fatal(err)
		}
		want := &key.Team{
			TeamID: "org-1", TeamAlias: "Acme", Models: []string{"m"}, Limits: everyLimit(), Metadata: []byte(`{"a": 1}`), Status: key.Active,
		}
		if diff := cmp.Diff(want, g.Team, cmpopts.IgnoreFields(key.Team{}, "CreatedAt", "UpdatedAt")); diff != "" {
			t.Errorf("team of the grant (-want +got):\n%s", diff)
		}
	}
	_, _, err := b.UpdateTeam(t.Context(), admin, key.TeamUpdate{
		Fields: []string{"limits.max_budget_nano_usd"}, Attributes: key.TeamAttributes{TeamID: "org-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if team, err := b.Team(t.Context(), "org-1"); err != nil || team.MaxBudgetNanoUSD != nil || team.RPMLimit == nil {
		t.Errorf("team = %+v, %v, want only its budget cleared", team, err)
	}
	for text, u := range map[string]key.TeamUpdate{
		"update_mask is required: name what changes": {Attributes: a},
		`update_mask: "status" cannot be changed`:    {Attributes: a, Fields: []string{"status"}},
		"team_id is required":                        {Fields: []string{"models"}},
		"budget_mode is not one that is known: hard or soft": {Fields: []string{"limits"}, Attributes: key.TeamAttributes{
			TeamID: "org-1", Limits: key.Limits{Finer: key.Finer{BudgetMode: "x"}},
		}},
	} {
		_, _, err := b.UpdateTeam(t.Context(), admin, u)
		wantFault(t, err, fault.Invalid, text)
	}
}

func TestADeletedTeamLeavesItsNameAndNoKeys(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	one, two := b.issue(t, "sess-1", "i"), b.issue(t, "sess-2", "")
	b.ensure(t, "org-2")
	kept := b.create(t, key.Attributes{TeamID: "org-2"})
	for i, revoked := range []int{2, 0} {
		d, err := b.DeleteTeam(t.Context(), admin, "org-1")
		if err != nil || d.Team.DeletedAt == nil || d.Revoked != revoked || d.Revision != 2 {
			t.Errorf("DeleteTeam, call %d = %+v, %v, want %d keys revoked, revision 2", i, d, err, revoked)
		}
	}
	b.wantUsable(t, one, false)
	b.wantUsable(t, two, false)
	b.wantUsable(t, kept, true)
	want := []key.Event{
		{Revision: 1, KeyIDs: []string{one.Key.KeyID, two.Key.KeyID}, TeamIDs: []string{}, Stopped: true, Reason: "revoked"},
		{Revision: 2, KeyIDs: []string{}, TeamIDs: []string{"org-1"}, Stopped: true, Reason: "revoked"},
	}
	if diff := cmp.Diff(want, b.events(t, 0), cmpopts.IgnoreFields(key.Event{}, "At")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	const gone = "team org-1 not found; make it with EnsureTeam first"
	_, err := b.IssueSessionKey(t.Context(), admin, key.IssueRequest{Attributes: key.Attributes{UserID: "sess-1", TeamID: "org-1"}})
	wantFault(t, err, fault.NotFound, gone)
	_, err = b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: key.Attributes{TeamID: "org-1"}})
	wantFault(t, err, fault.NotFound, gone)
	_, _, err = b.UpdateKey(t.Context(), admin, kept.Key.KeyID, key.Update{Fields: []string{"team_id"}, Attributes: key.Attributes{TeamID: "org-1"}})
	wantFault(t, err, fault.NotFound, gone)
	_, _, err = b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "org-1", Status: key.Blocked})
	wantFault(t, err, fault.NotFound, "team org-1 not found")
	_, err = b.DeleteTeam(t.Context(), admin, "org-9")
	wantFault(t, err, fault.NotFound, "team org-9 not found")

	team, created, err := b.EnsureTeam(t.Context(), admin, key.TeamAttributes{TeamID: "org-1", TeamAlias: "New"})
	if err != nil || !created || team.DeletedAt != nil || team.TeamAlias != "New" {
		t.Errorf("EnsureTeam = %+v, %v, %v, want it made anew", team, created, err)
	}
	b.wantUsable(t, b.issue(t, "sess-1", "i"), true)
	b.wantUsable(t, one, false)
}

// Whoever comes first, a team that was deleted while keys were made for it has
// none.
func TestNoKeyOutlivesTheDeletionOfItsTeam(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for round := range 5 {
		teamID := fmt.Sprintf("org-%d", round)
		b.ensure(t, teamID)
		var g errgroup.Group
		for i := range 6 {
			g.Go(func() error {
				var err error
				if i%2 == 0 {
					_, err = b.CreateKey(t.Context(), admin, key.CreateRequest{Attributes: key.Attributes{TeamID: teamID}})
				} else {
					_, err = b.IssueSessionKey(t.Context(), admin, key.IssueRequest{Attributes: key.Attributes{TeamID: teamID, UserID: fmt.Sprint(i)}})
				}
				if err != nil && fault.KindOf(err) != fault.NotFound {
					return err
				}
				return nil
			})
		}
		g.Go(func() error { _, err := b.DeleteTeam(t.Context(), admin, teamID); return err })
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if live := column[int](t, b, `select count(*) from keys.keys where team_id = $1 and revoked_at is null`, teamID); live[0] != 0 {
			t.Errorf("%d keys of a deleted team are live", live[0])
		}
	}
}

func TestEndsAreAnnouncedOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.create(t, key.Attributes{Duration: "1h"})
	b.create(t, key.Attributes{})
	gone := b.create(t, key.Attributes{Duration: "0s"})
	b.revoke(t, key.Selection{KeyIDs: []string{gone.Key.KeyID}})
	expired := b.create(t, key.Attributes{Duration: "0s"}).Key.KeyID
	rotated := b.create(t, key.Attributes{}).Key.KeyID
	b.rotate(t, key.RotateRequest{Ref: rotated, GracePeriod: "1h"})
	if _, err := b.db.Exec(t.Context(), `update keys.old_secrets set ends_at = now()`); err != nil {
		t.Fatal(err)
	}
	before := int64(len(b.events(t, 0)))
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { _, err := b.Expire(t.Context(), 10); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Expire(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("Expire again = %d, %v, want 0", n, err)
	}
	got := b.events(t, before)
	stopped := map[string]bool{}
	for _, e := range got {
		stopped[e.KeyIDs[0]] = e.Stopped && e.Reason == "revoked"
	}
	if diff := cmp.Diff(map[string]bool{expired: true, rotated: false}, stopped); diff != "" || len(got) != 2 {
		t.Errorf("%d events, stopped (-want +got):\n%s", len(got), diff)
	}
	// A longer life has an end of its own.
	for duration, want := range map[string]int{"1h": 0, "0s": 1} {
		u := key.Update{Fields: []string{"duration"}, Attributes: key.Attributes{Duration: duration}}
		if _, _, err := b.UpdateKey(t.Context(), admin, expired, u); err != nil {
			t.Fatal(err)
		}
		if n, err := b.Expire(t.Context(), 10); n != want || err != nil {
			t.Errorf("after a life of %s: Expire = %d, %v, want %d", duration, n, err, want)
		}
	}
}

func TestThePastIsPrunedWithoutGaps(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for range 6 {
		b.issue(t, "sess-1", "")
	}
	// The clock of the fourth change was slow.
	for _, sql := range []string{
		`update keys.events set at = now() - interval '10 days' where revision in (1, 2, 4)`,
		`update keys.audit set at = now() - interval '500 days' where id <= 3`,
	} {
		if _, err := b.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	r := key.Retention{Events: 7 * 24 * time.Hour, Audit: 400 * 24 * time.Hour}
	for i, want := range []int{4, 1, 0} {
		if n, err := b.Prune(t.Context(), r, 2); n != want || err != nil {
			t.Errorf("Prune, call %d = %d, %v, want %d", i, n, err, want)
		}
	}
	if diff := cmp.Diff([]int64{3, 4, 5}, column[int64](t, b, `select revision from keys.events order by revision`)); diff != "" {
		t.Errorf("events that are left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{4}, column[int64](t, b, `select min(id) from keys.audit`)); diff != "" {
		t.Errorf("oldest audit row that is left (-want +got):\n%s", diff)
	}
}
