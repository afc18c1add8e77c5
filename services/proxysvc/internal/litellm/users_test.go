package litellm_test

import (
	"net/http"
	"testing"

	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

func TestUsersAreSessions(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	got := s.must(http.MethodPost, "/user/new", `{"user_id":"sess-1","user_email":"a@b.c","teams":["org-1"],"max_budget":5,"models":["m"],"aliases":{"f":"g"}}`)
	if key, _ := got["key"].(string); !virtualkey.Valid(key) || got["token"] != virtualkey.Token(key) {
		t.Fatalf("answer %v", got)
	}
	s.want(pick(got, "user_id", "user_email", "user_role", "team_id", "teams", "max_budget", "models"),
		`{"user_id":"sess-1","user_email":"a@b.c","user_role":"internal_user","team_id":"org-1","teams":["org-1"],"max_budget":5,"models":["m"]}`)
	s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "key_0", UserID: "sess-1"}, Cost: 1e9, EndedAt: today})

	info := s.must(http.MethodGet, "/user/info?user_id=sess-1", "")
	user, _ := info["user_info"].(map[string]any)
	s.want(pick(user, "user_id", "spend", "max_budget", "teams", "key_count"), `{"user_id":"sess-1","spend":1,"max_budget":5,"teams":["org-1"],"key_count":1}`)
	keys, _ := info["keys"].([]any)
	key, _ := keys[0].(map[string]any)
	s.want(pick(key, "token", "team_alias", "spend"), `{"token":"`+s.keysvc.keys[0].GetToken()+`","team_alias":null,"spend":1}`)
	teams, _ := info["teams"].([]any)
	team, _ := teams[0].(map[string]any)
	s.want(pick(team, "team_id"), `{"team_id":"org-1"}`)

	updated, _ := s.must(http.MethodPost, "/user/update", `{"user_id":"sess-1","max_budget":9}`)["data"].(map[string]any)
	s.want(pick(updated, "max_budget", "spend"), `{"max_budget":9,"spend":1}`)
	list := s.must(http.MethodGet, "/user/list", "")
	s.want(pick(list, "total", "page", "page_size", "total_pages"), `{"total":1,"page":1,"page_size":25,"total_pages":1}`)
	named := s.must(http.MethodGet, "/user/list?user_ids=nobody,sess-1", "")
	if users, _ := named["users"].([]any); len(users) != 1 {
		t.Errorf("named: %v", named)
	}
	s.want(s.get(http.MethodPost, "/user/delete", `{"user_ids":["sess-1"]}`), `1`)
	if s.keysvc.keys[0].GetRevokedAt() == nil {
		t.Error("the key lives")
	}
	gone := s.must(http.MethodGet, "/user/info?user_id=sess-1", "")
	s.want(pick(gone, "keys", "teams"), `{"keys":[],"teams":[]}`)
}

func TestUsersThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.generate(`{"user_id":"two"}`)
	s.generate(`{"user_id":"two"}`)
	for _, tt := range []struct {
		method, path, body string
		want               envelope
	}{
		{"GET", "/user/info", "", envelope{"user_id must be given", "bad_request_error", "None", "400"}},
		{"GET", "/user/info?user_id=nobody", "", envelope{"User nobody not found", "not_found_error", "None", "404"}},
		{"POST", "/user/delete", `{"user_ids":["two","nobody"]}`, envelope{"User nobody not found", "not_found_error", "None", "404"}},
		{"POST", "/user/new", `{"auto_create_key":false}`, envelope{"a user is a session here, which exists by its keys: auto_create_key cannot be false", "bad_request_error", "None", "400"}},
		{"POST", "/user/new", `{"user_role":"proxy_admin"}`, envelope{`user_role "proxy_admin": administrators are made by LLM_PROXY_ADMIN_TOKENS`, "bad_request_error", "None", "400"}},
		{"POST", "/user/new", `{"teams":["a","b"]}`, envelope{"a session belongs to one team, not to 2", "bad_request_error", "None", "400"}},
		{"POST", "/user/update", `{"user_id":"two","max_budget":1}`, envelope{
			"user two has 2 keys; a session's limits are those of its key, so change them with /key/update", "bad_request_error", "None", "400",
		}},
	} {
		code, got := s.send(tt.method, tt.path, master, tt.body)
		s.refused(code, got, map[string]int{"400": 400, "404": 404}[tt.want.code], tt.want)
	}
	if s.keysvc.revoked != nil {
		t.Error("keys were revoked although a user is missing")
	}
}
