package litellm_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

func TestUpdateTeam(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.must(http.MethodPost, "/team/new", `{"team_id":"org-1","team_alias":"Acme","max_budget":1}`)
	s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "k", TeamID: "org-1"}, Cost: 1e9, EndedAt: today})
	got := s.must(http.MethodPost, "/team/update", `{"team_id":"org-1","max_budget":7,"models":["m"],"team_alias":null}`)
	data, _ := got["data"].(map[string]any)
	s.want(pick(data, "team_alias", "max_budget", "models", "spend", "blocked"), `{"team_alias":"Acme","max_budget":7,"models":["m"],"spend":1,"blocked":false}`)
	want := &keysv1.UpdateTeamRequest{
		Team:       &keysv1.Team{TeamId: "org-1", Models: []string{"m"}, Limits: &keysv1.Limits{MaxBudgetNanoUsd: proto.Int64(7e9)}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"limits.max_budget_nano_usd", "models"}},
	}
	if diff := cmp.Diff(want, s.keysvc.teams.updated, protocmp.Transform()); diff != "" || got["team_id"] != "org-1" {
		t.Errorf("asked of the key service (-want +got):\n%s", diff)
	}
	s.keysvc.teams.updated = nil
	got = s.must(http.MethodPost, "/team/update", `{"team_id":"org-1","blocked":true}`)
	data, _ = got["data"].(map[string]any)
	if s.keysvc.teams.updated != nil || data["blocked"] != true {
		t.Errorf("%v, %v", s.keysvc.teams.updated, data)
	}
	code, refusal := s.send(http.MethodPost, "/team/update", master, `{"team_id":"nobody"}`)
	s.refused(code, refusal, 404, envelope{"Team not found, passed team_id=nobody", "not_found_error", "None", "404"})
}

func TestTheGateOfATeam(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.must(http.MethodPost, "/team/new", `{"team_id":"org-1","blocked":true}`)
	team := s.keysvc.teams.byID["org-1"]
	if team.GetStatus() != keysv1.TeamStatus_TEAM_STATUS_BLOCKED {
		t.Errorf("a new team that is blocked: %v", team)
	}
	for _, step := range []struct {
		path    string
		blocked bool
	}{{"/team/unblock", false}, {"/team/unblock", false}, {"/team/block", true}, {"/team/block", true}, {"/team/unblock", false}} {
		got := s.must(http.MethodPost, step.path, `{"team_id":"org-1"}`)
		if got["team_id"] != "org-1" || got["blocked"] != step.blocked {
			t.Errorf("%s: %v", step.path, got)
		}
	}
	team.Status = keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED
	code, got := s.send(http.MethodPost, "/team/unblock", master, `{"team_id":"org-1"}`)
	s.refused(code, got, 400, envelope{
		"Team=org-1 is not blocked: billing has stopped it, and opens it again when it has credits", "bad_request_error", "None", "400",
	})
	if team.GetStatus() != keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED {
		t.Errorf("the gate of billing was opened: %v", team)
	}
}

func TestDeleteTeams(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, id := range []string{"a", "b"} {
		s.must(http.MethodPost, "/team/new", `{"team_id":"`+id+`"}`)
	}
	code, got := s.send(http.MethodPost, "/team/delete", master, `{"team_ids":["a","nobody"]}`)
	s.refused(code, got, 404, envelope{"Team not found, passed team_id=nobody", "not_found_error", "None", "404"})
	if len(s.keysvc.teams.deleted) != 0 {
		t.Error("a team was deleted although another one is missing")
	}
	s.want(s.must(http.MethodPost, "/team/delete", `{"team_ids":["a","b"]}`), `{"deleted_teams":["a","b"]}`)
	code, got = s.send(http.MethodGet, "/team/info?team_id=a", master, "")
	s.refused(code, got, 404, envelope{"Team not found, passed team id: a.", "not_found_error", "None", "404"})
}

func TestListTeams(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.must(http.MethodPost, "/team/new", `{"team_id":"1","team_alias":"Zebra"}`)
	s.must(http.MethodPost, "/team/new", `{"team_id":"2","team_alias":"Acme"}`)
	s.generate(`{"key_alias":"k","team_id":"1"}`)
	got, _ := s.get(http.MethodGet, "/team/list", "").([]any)
	if len(got) != 2 {
		t.Fatalf("teams %v", got)
	}
	first, _ := got[0].(map[string]any)
	second, _ := got[1].(map[string]any)
	s.want(pick(first, "team_alias", "keys", "team_memberships"), `{"team_alias":"Acme","keys":[],"team_memberships":[]}`)
	keys, _ := second["keys"].([]any)
	key, _ := keys[0].(map[string]any)
	s.want(pick(key, "key_alias", "token"), `{"key_alias":"k","token":"missing"}`)

	page := s.must(http.MethodGet, "/v2/team/list?page=2&page_size=1", "")
	teams, _ := page["teams"].([]any)
	team, _ := teams[0].(map[string]any)
	s.want(pick(page, "total", "page", "page_size", "total_pages"), `{"total":2,"page":2,"page_size":1,"total_pages":2}`)
	s.want(pick(team, "team_id", "spend"), `{"team_id":"2","spend":0}`)
	s.want(pick(s.must(http.MethodGet, "/v2/team/list?team_id=nobody", ""), "teams", "total", "total_pages"), `{"teams":[],"total":0,"total_pages":0}`)
	s.want(pick(s.must(http.MethodGet, "/v2/team/list?team_alias=Acme", ""), "total"), `{"total":1}`)
	s.want(s.get(http.MethodGet, "/team/available", ""), `[]`)
	code, refusal := s.send(http.MethodPost, "/team/member_add", master, `{"team_id":"1"}`)
	s.refused(code, refusal, 501, envelope{
		"teams have no members here: whoever holds a key of the team spends for it", "not_implemented_error", "None", "501",
	})
}
