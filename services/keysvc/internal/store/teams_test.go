package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

func TestEnsureTeamReturnsAKnownTeamUnchanged(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	budget := 7 * money.USD
	a := key.TeamAttributes{
		TeamID: "org-1", TeamAlias: "Acme", Models: []string{"m"},
		Limits: key.Limits{MaxBudgetNanoUSD: &budget}, Metadata: []byte(`{"plan": "pro"}`),
	}
	first, created, err := b.EnsureTeam(t.Context(), admin, a)
	if err != nil || !created {
		t.Fatalf("EnsureTeam = %v, %v, want it created", created, err)
	}
	a.TeamAlias, a.Limits = "Other", key.Limits{}
	again, created, err := b.EnsureTeam(t.Context(), admin, a)
	if err != nil || created {
		t.Fatalf("EnsureTeam again = %v, %v, want it not created", created, err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the team changed (-first +again):\n%s", diff)
	}
}

func TestTeamsAreListedByIDInPages(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, id := range []string{"c", "a", "b"} {
		b.ensure(t, id)
	}
	var got []string
	for page := (key.Page{Size: 2}); ; {
		teams, err := b.Teams(t.Context(), key.TeamFilter{}, page, true)
		if err != nil {
			t.Fatal(err)
		}
		if *teams.Total != 3 {
			t.Errorf("total = %d, want 3", *teams.Total)
		}
		for _, team := range teams.Items {
			got = append(got, team.TeamID)
		}
		if page.Token = teams.Next; page.Token == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("teams (-want +got):\n%s", diff)
	}
	_, err := b.Team(t.Context(), "d")
	wantFault(t, err, fault.NotFound, "team d not found")
}

func TestTheGateStopsAndOpens(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.issue(t, "sess-1", "")
	set := func(status key.Status, reason, wantReason string, wantRevision int64) {
		t.Helper()
		team, revision, err := b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "org-1", Status: status, Reason: reason})
		if err != nil || team.Status != status || team.StatusReason != wantReason || revision != wantRevision {
			t.Errorf("SetTeamStatus(%s) = %+v, %d, %v, want reason %q, revision %d", status, team, revision, err, wantReason, wantRevision)
		}
		g, err := b.VerifyKey(t.Context(), c.Key.Token) // the gate is told, not judged
		if err != nil || g.Team.Status != status || g.Revision != wantRevision {
			t.Errorf("grant = %+v, %v, want status %s, revision %d", g, err, status, wantRevision)
		}
	}
	set(key.Active, "", "", 0) // unchanged
	set(key.Exhausted, "", "The organisation's credits are used up.", 1)
	set(key.Exhausted, "", "The organisation's credits are used up.", 1) // unchanged
	set(key.Suspended, "Pay the bill.", "Pay the bill.", 2)
	set(key.Blocked, "", "The organisation is blocked by an administrator.", 3)
	set(key.Active, "all is well", "", 4)
	want := []key.Event{
		{Revision: 1, Stopped: true, Reason: "exhausted"},
		{Revision: 2, Stopped: true, Reason: "suspended"},
		{Revision: 3, Stopped: true, Reason: "blocked"},
		{Revision: 4},
	}
	for i := range want {
		want[i].KeyIDs, want[i].TeamIDs = []string{}, []string{"org-1"}
	}
	if diff := cmp.Diff(want, b.events(t, 0), cmpopts.IgnoreFields(key.Event{}, "At")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	_, _, err := b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "org-9", Status: key.Active})
	wantFault(t, err, fault.NotFound, "team org-9 not found")
	_, _, err = b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "org-1"})
	wantFault(t, err, fault.Invalid, "status is required: active, blocked, exhausted or suspended")
}

// TestTheGateFollowsBillingInOrder tells of changes that come late, and of one while an
// administrator has the team blocked.
func TestTheGateFollowsBillingInOrder(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.issue(t, "sess-1", "")
	for n, step := range []struct {
		generation         int64
		status, want       key.Status
		revision, gateThen int64
		fault              bool
	}{
		{2, key.Exhausted, key.Exhausted, 1, 2, false},
		{1, key.Active, key.Exhausted, 1, 2, false}, // late
		{3, key.Exhausted, key.Exhausted, 1, 3, false},
		{2, key.Suspended, key.Exhausted, 1, 3, false}, // late
		{0, key.Active, key.Active, 2, 3, false},       // an administrator, whom billing
		{3, key.Exhausted, key.Exhausted, 3, 3, false}, // overrides with what stands,
		{0, key.Blocked, key.Blocked, 4, 3, false},     // but not so
		{4, key.Active, key.Blocked, 4, 3, true},
		{0, key.Active, key.Active, 5, 3, false},
		{4, key.Suspended, key.Suspended, 6, 4, false},
		{-1, key.Active, key.Suspended, 6, 4, true},
	} {
		team, revision, err := b.SetTeamStatus(t.Context(), admin, key.StatusRequest{TeamID: "org-1", Status: step.status, Generation: step.generation})
		if (err != nil) != step.fault {
			t.Fatalf("step %d: %v", n, err)
		}
		if step.generation > 0 && step.fault && fault.KindOf(err) != fault.Precondition {
			t.Errorf("step %d: %v, want Precondition", n, err)
		}
		if err != nil {
			if team, err = b.Team(t.Context(), "org-1"); err != nil {
				t.Fatal(err)
			}
			revision = step.revision
		}
		if team.Status != step.want || team.GateGeneration != step.gateThen || revision != step.revision {
			t.Errorf("step %d: %s of generation %d at %d, want %+v", n, team.Status, team.GateGeneration, revision, step)
		}
	}
	if got := len(b.events(t, 0)); got != 6 {
		t.Errorf("%d events, want one a change", got)
	}
}
