package litellm_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

func TestGenerateKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	got := s.must(http.MethodPost, "/key/generate", `{
		"key_alias": "sess-1", "duration": "24h", "models": ["claude-sonnet-5"], "user_id": "sess-1", "team_id": "org-1",
		"max_budget": 5.0, "budget_duration": "30d", "tpm_limit": 1000000, "rpm_limit": 60, "max_parallel_requests": 4,
		"metadata": {"plan": "pro"}, "tags": ["a", "b"], "aliases": {"fast": "claude-haiku-4-5"}}`)
	budget, tpm, rpm, parallel := int64(5_000_000_000), int64(1_000_000), int64(60), int64(4)
	wantRequest := &keysv1.CreateKeyRequest{
		KeyAlias: "sess-1", TeamId: "org-1", UserId: "sess-1", Models: []string{"claude-sonnet-5"}, Duration: "24h", Tags: []string{"a", "b"},
		Aliases:  map[string]string{"fast": "claude-haiku-4-5"},
		Limits:   &keysv1.Limits{MaxBudgetNanoUsd: &budget, TpmLimit: &tpm, RpmLimit: &rpm, MaxParallelRequests: &parallel, BudgetDuration: "30d"},
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"plan": structpb.NewStringValue("pro")}},
	}
	if diff := cmp.Diff(wantRequest, s.keysvc.created, protocmp.Transform()); diff != "" {
		t.Errorf("asked of the key service (-want +got):\n%s", diff)
	}
	if _, ok := s.keysvc.teams.byID["org-1"]; !ok {
		t.Error("the team was not made")
	}
	key, _ := got["key"].(string)
	if !virtualkey.Valid(key) {
		t.Fatalf("no key in %v", got)
	}
	s.want(got, fmt.Sprintf(`{"key":%q,"key_name":"sk-...%s","token":%q,"token_id":%q,
		"key_alias":"sess-1","duration":"24h","expires":"2026-05-02T12:00:00Z","models":["claude-sonnet-5"],
		"spend":0,"max_budget":5,"user_id":"sess-1","team_id":"org-1","max_parallel_requests":4,"metadata":{"plan":"pro"},
		"tpm_limit":1000000,"rpm_limit":60,"budget_duration":"30d","allowed_cache_controls":[],"config":{},"permissions":{},
		"model_max_budget":{},"model_rpm_limit":null,"model_tpm_limit":null,"guardrails":null,"blocked":null,"aliases":{"fast":"claude-haiku-4-5"},
		"tags":["a","b"],"enforced_params":null,"allowed_routes":[],"soft_budget":null,"budget_id":null,"organization_id":null,
		"project_id":null,"litellm_budget_table":null,"object_permission":null,"created_by":"default_user_id","budget_limits":null,
		"updated_by":"default_user_id","created_at":"2026-05-01T12:00:00Z","updated_at":"2026-05-01T12:00:00Z"}`,
		key, key[len(key)-4:], virtualkey.Token(key), virtualkey.Token(key)))
}

func TestGenerateKeyTakesAlmostNothing(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no body":        ``,
		"an empty body":  `{}`,
		"empty text":     `{"max_budget":"","guardrails":[],"policies":null,"enforced_params":[],"object_permission":{},"budget_id":"","auto_rotate":false,"spend":0}`,
		"nulls":          `{"key_alias":null,"key":null,"duration":null,"models":null,"user_id":null,"team_id":null,"max_budget":null,"tpm_limit":null,"metadata":null,"tags":null}`,
		"unknown fields": `{"organization_id":"o","config":{},"nothing_we_know":{"a":[1,{"b":null}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			got := s.must(http.MethodPost, "/key/generate", body)
			if diff := cmp.Diff(&keysv1.CreateKeyRequest{Limits: &keysv1.Limits{}}, s.keysvc.created, protocmp.Transform()); diff != "" {
				t.Errorf("asked of the key service (-want +got):\n%s", diff)
			}
			if n := len(s.keysvc.teams.ensured); n != 0 {
				t.Errorf("%d teams were asked for", n)
			}
			for _, field := range []string{"key_alias", "duration", "expires", "max_budget", "user_id", "team_id", "tpm_limit", "rpm_limit", "max_parallel_requests", "budget_duration", "tags"} {
				if v, ok := got[field]; !ok || v != nil {
					t.Errorf("%s is %v (there: %t), want null", field, v, ok)
				}
			}
			if diff := cmp.Diff([]any{[]any{}, map[string]any{}}, []any{got["models"], got["metadata"]}); diff != "" {
				t.Errorf("models and metadata (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBudgetsAreNumbersOutsideAndNanoDollarsInside(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	tests := []struct {
		name, sent string
		nano       int64
		shown      string
	}{
		{"a tenth", `0.1`, 100_000_000, "0.1"},
		{"whole dollars", `5`, 5_000_000_000, "5"},
		{"whole dollars as Python writes them", `5.0`, 5_000_000_000, "5"},
		{"nothing", `0`, 0, "0"},
		{"a nano-dollar", `1e-9`, 1, "1e-9"},
		{"a nano-dollar in full", `0.000000001`, 1, "1e-9"},
		{"every digit", `123456.789012345`, 123_456_789_012_345, "123456.789012345"},
		{"the sum of floats", `0.30000000000000004`, 300_000_000, "0.3"},
		{"less than a nano-dollar", `1e-10`, 0, "0"},
		{"a number as text", `"2.5"`, 2_500_000_000, "2.5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := s.in(t).must(http.MethodPost, "/key/generate", `{"max_budget":`+tt.sent+`}`)
			if n := s.keysvc.created.GetLimits().GetMaxBudgetNanoUsd(); n != tt.nano || s.keysvc.created.GetLimits().MaxBudgetNanoUsd == nil {
				t.Errorf("max_budget_nano_usd = %d, want %d", n, tt.nano)
			}
			if got["max_budget"] != json.Number(tt.shown) {
				t.Errorf("max_budget is shown as %v, want %s", got["max_budget"], tt.shown)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.must(http.MethodPost, "/key/generate", `{"key_alias":"taken"}`)
	s.must(http.MethodPost, "/team/new", `{"team_id":"taken"}`)
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     envelope
	}{
		{
			"a negative budget", "POST", "/key/generate", `{"max_budget":-1}`, 400,
			envelope{"max_budget cannot be negative. Received: -1", "bad_request_error", "None", "400"},
		},
		{
			"a negative budget of a team", "POST", "/team/new", `{"max_budget":-0.5}`, 400,
			envelope{"max_budget cannot be negative. Received: -0.5", "bad_request_error", "None", "400"},
		},
		{
			"a budget that is no number", "POST", "/key/generate", `{"max_budget":"NaN"}`, 400,
			envelope{"max_budget must be an amount in USD, at most 9 billion. Received: NaN", "bad_request_error", "None", "400"},
		},
		{
			"a budget without an end", "POST", "/key/generate", `{"max_budget":"Infinity"}`, 400,
			envelope{"max_budget must be an amount in USD, at most 9 billion. Received: +Inf", "bad_request_error", "None", "400"},
		},
		{
			"a budget beyond all money", "POST", "/key/generate", `{"max_budget":1e12}`, 400,
			envelope{"max_budget must be an amount in USD, at most 9 billion. Received: 1e+12", "bad_request_error", "None", "400"},
		},
		{
			"a limit with a fraction", "POST", "/key/generate", `{"rpm_limit":1.5}`, 400,
			envelope{"rpm_limit must be a whole number that is not negative. Received: 1.5", "bad_request_error", "None", "400"},
		},
		{
			"a negative limit", "POST", "/key/generate", `{"max_parallel_requests":-1}`, 400,
			envelope{"max_parallel_requests must be a whole number that is not negative. Received: -1", "bad_request_error", "None", "400"},
		},
		{
			"a key of the caller's choice", "POST", "/key/generate", `{"key":"sk-mine"}`, 400,
			envelope{"key cannot be chosen here: leave it out and use the key of the answer", "bad_request_error", "None", "400"},
		},
		{
			"an alias that is taken", "POST", "/key/generate", `{"key_alias":"taken"}`, 400,
			envelope{"Key with alias 'taken' already exists. Unique key aliases across all keys are required.", "bad_request_error", "key_alias", "400"},
		},
		{
			"a deletion of nothing", "POST", "/key/delete", `{}`, 400,
			envelope{"keys or key_aliases must be given", "bad_request_error", "None", "400"},
		},
		{
			"a deletion of what does not exist", "POST", "/key/delete", `{"keys":["sk-nobody"]}`, 404,
			envelope{"No keys found", "not_found_error", "None", "404"},
		},
		{
			"a deletion of an alias that does not exist", "POST", "/key/delete", `{"key_aliases":["nobody"]}`, 404,
			envelope{"No keys found", "not_found_error", "None", "404"},
		},
		{
			"a key that does not exist", "GET", "/key/info?key=sk-nobody", ``, 404,
			envelope{"Key not found in database", "not_found_error", "None", "404"},
		},
		{
			"no key", "GET", "/key/info", ``, 400,
			envelope{"key must be given: a key or its token", "bad_request_error", "None", "400"},
		},
		{
			"a team that exists", "POST", "/team/new", `{"team_id":"taken"}`, 400,
			envelope{"Team id = taken already exists. Please use a different team id.", "bad_request_error", "None", "400"},
		},
		{
			"a team that does not exist", "GET", "/team/info?team_id=nobody", ``, 404,
			envelope{"Team not found, passed team id: nobody.", "not_found_error", "None", "404"},
		},
		{
			"no team", "GET", "/team/info", ``, 400,
			envelope{"team_id must be given", "bad_request_error", "None", "400"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			code, got := s.send(tt.method, tt.path, master, tt.body)
			s.refused(code, got, tt.status, tt.want)
		})
	}
}

func TestABodyThatIsNoJSONIsARequestError(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, body := range []string{`{"max_budget":`, `[]`, `{"models":"all"}`, `{"max_budget":"a lot"}`} {
		code, got := s.send(http.MethodPost, "/key/generate", master, body)
		text, _ := got["error"].(map[string]any)
		if code != http.StatusBadRequest || text["code"] != "400" || text["type"] != "invalid_request_error" || text["message"] == "" {
			t.Errorf("%s: %d %v", body, code, got)
		}
	}
}

func TestWithoutAMasterKeyNothingIsDone(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	const message = "Authentication Error, Invalid proxy server token passed. A master key is needed in `Authorization: Bearer`."
	for _, token := range []string{"", "sk-wrong", virtualkey.New().Reveal()} {
		for _, r := range []struct{ method, path, body string }{
			{http.MethodPost, "/key/generate", `{"team_id":"org-1"}`},
			{http.MethodPost, "/key/delete", `{"keys":["sk-x"]}`},
			{http.MethodGet, "/key/info?key=sk-x", ``},
			{http.MethodPost, "/team/new", `{}`},
			{http.MethodGet, "/team/info?team_id=org-1", ``},
		} {
			code, got := s.send(r.method, r.path, token, r.body)
			s.refused(code, got, http.StatusUnauthorized, envelope{message, "auth_error", "None", "401"})
		}
	}
	if len(s.keysvc.keys)+len(s.keysvc.teams.ensured) != 0 {
		t.Error("the key service was asked all the same")
	}
}

func TestWhatIsNoRoute(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, tt := range []struct {
		name, method, path string
		status             int
		detail             string
	}{
		{"an unknown route", http.MethodPost, "/key/dance", 404, "Not Found"},
		{"a route below one that is known", http.MethodGet, "/key/info/more", 404, "Not Found"},
		{"a wrong method", http.MethodGet, "/key/generate", 405, "Method Not Allowed"},
		{"another wrong method", http.MethodDelete, "/team/info", 405, "Method Not Allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, got := s.in(t).send(tt.method, tt.path, master, "")
			if diff := cmp.Diff(map[string]any{"detail": tt.detail}, got); code != tt.status || diff != "" {
				t.Errorf("status %d, want %d; answer (-want +got):\n%s", code, tt.status, diff)
			}
		})
	}
}

func TestDeleteKeys(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	generate := func(alias string) string {
		key, _ := s.must(http.MethodPost, "/key/generate", `{"key_alias":"`+alias+`"}`)["key"].(string)
		return key
	}
	first, second := generate("first"), generate("second")
	generate("third")
	// By plaintext and by hash; what does not exist is ignored.
	body := fmt.Sprintf(`{"keys":[%q,%q,"sk-nobody"]}`, first, virtualkey.Token(second))
	s.want(s.must(http.MethodPost, "/key/delete", body), strings.Replace(body, "keys", "deleted_keys", 1))
	want := &keysv1.RevokeKeysRequest{Tokens: []string{virtualkey.Token(first), virtualkey.Token(second), virtualkey.Token("sk-nobody")}}
	if diff := cmp.Diff(want, s.keysvc.revoked, protocmp.Transform()); diff != "" {
		t.Errorf("asked of the key service (-want +got):\n%s", diff)
	}
	s.want(s.must(http.MethodPost, "/key/delete", `{"key_aliases":["third","nobody"]}`), `{"deleted_keys":["third","nobody"]}`)
	for _, key := range s.keysvc.keys {
		if key.GetRevokedAt() == nil {
			t.Errorf("%s is still there", key.GetKeyAlias())
		}
	}
	code, got := s.send(http.MethodGet, "/key/info?key="+first, master, "")
	s.refused(code, got, http.StatusNotFound, envelope{"Key not found in database", "not_found_error", "None", "404"})
}

func TestKeyInfo(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key, _ := s.must(http.MethodPost, "/key/generate", `{"key_alias":"sess-1","duration":"24h","user_id":"sess-1","team_id":"org-1","max_budget":5}`)["key"].(string)
	s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "key_sess-1"}, Cost: 12_300_000, EndedAt: today})
	const info = `{"key_name":"sk-...%s","key_alias":"sess-1","soft_budget_cooldown":false,
		"spend":0.0123,"expires":"2026-05-02T12:00:00Z","models":[],"aliases":{},"config":{},"user_id":"sess-1",
		"team_id":"org-1","permissions":{},"max_parallel_requests":null,"metadata":{},"blocked":%s,"tpm_limit":null,
		"rpm_limit":null,"max_budget":5,"budget_duration":null,"budget_reset_at":null,"allowed_cache_controls":[],
		"model_spend":{},"model_max_budget":{},"budget_id":null,"organization_id":null,"created_at":"2026-05-01T12:00:00Z",
		"created_by":"default_user_id","updated_at":"2026-05-01T12:00:00Z","updated_by":"default_user_id",
		"litellm_budget_table":null,"object_permission":null,"allowed_routes":[],"budget_limits":null,"last_rotation_at":null}`
	last := key[len(key)-4:]
	for _, passed := range []string{key, virtualkey.Token(key)} {
		got := s.must(http.MethodGet, "/key/info?unknown=1&key="+url.QueryEscape(passed), "")
		s.want(got, fmt.Sprintf(`{"key":%q,"info":`+info+`}`, passed, last, "null"))
	}
	s.keysvc.keys[0].Blocked = true
	s.want(s.must(http.MethodGet, "/key/info?key="+key, ""), fmt.Sprintf(`{"key":%q,"info":`+info+`}`, key, last, "true"))
	s.keysvc.keys[0].Blocked = false
	// The team's page shows the same row.
	got := s.must(http.MethodGet, "/team/info?team_id=org-1", "")
	keys, _ := got["keys"].([]any)
	if len(keys) != 1 {
		t.Fatalf("%d keys, want 1: %v", len(keys), got)
	}
	row, _ := keys[0].(map[string]any)
	s.want(row, fmt.Sprintf(info, last, "null"))
}

func TestTeams(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	const row = `{"team_id":"org-1","team_alias":"Acme","organization_id":null,"admins":[],"members":[],
		"members_with_roles":[{"user_id":"default_user_id","user_email":null,"role":"admin"}],"metadata":{"a":1},"tpm_limit":null,
		"rpm_limit":7,"max_budget":100,"budget_duration":"30d","models":["m"],"blocked":%t,"spend":%s,
		"max_parallel_requests":null,"budget_reset_at":%s,"soft_budget":null,"budget_limits":null,"model_id":null,"litellm_model_table":null,
		"created_at":"2026-05-01T12:00:00Z","updated_at":"2026-05-01T12:00:00Z"}`
	got := s.must(http.MethodPost, "/team/new", `{"team_id":"org-1","team_alias":"Acme","max_budget":100.0,"budget_duration":"30d",
		"rpm_limit":7,"models":["m"],"metadata":{"a":1},"organization_id":"ignored","members_with_roles":[{"role":"user","user_id":"x"}]}`)
	s.want(got, fmt.Sprintf(row, false, "0", "null"))
	s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "k", TeamID: "org-1"}, Cost: 1, EndedAt: today})
	budget, rpm := int64(100_000_000_000), int64(7)
	want := &keysv1.EnsureTeamRequest{
		TeamId: "org-1", TeamAlias: "Acme", Models: []string{"m"},
		Limits:   &keysv1.Limits{MaxBudgetNanoUsd: &budget, RpmLimit: &rpm, BudgetDuration: "30d"},
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(1)}},
	}
	if diff := cmp.Diff(want, s.keysvc.teams.ensured[0], protocmp.Transform()); diff != "" {
		t.Errorf("asked of the key service (-want +got):\n%s", diff)
	}
	for name, status := range map[string]keysv1.TeamStatus{
		"false": keysv1.TeamStatus_TEAM_STATUS_ACTIVE, "true": keysv1.TeamStatus_TEAM_STATUS_EXHAUSTED,
	} {
		s.keysvc.teams.byID["org-1"].Status = status
		info := s.must(http.MethodGet, "/team/info?team_id=org-1", "")
		s.want(info, fmt.Sprintf(`{"team_id":"org-1","team_info":`+row+`,"keys":[],"team_memberships":[]}`, name == "true", "1e-9", `"2026-06-01T00:00:00Z"`))
	}
	id, _ := s.must(http.MethodPost, "/team/new", `{}`)["team_id"].(string)
	if len(id) != 36 || strings.Count(id, "-") != 4 {
		t.Errorf("the id of a team without one is %q, want a UUID", id)
	}
}

// TestTroubleBehindIsToldWithoutDetails takes away the ledger, then keysvc.
func TestTroubleBehindIsToldWithoutDetails(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key, _ := s.must(http.MethodPost, "/key/generate", `{}`)["key"].(string)
	s.db.Close()
	code, got := s.send(http.MethodGet, "/key/info?key="+key, master, "")
	s.refused(code, got, http.StatusInternalServerError, envelope{"internal error", "internal_server_error", "None", "500"})
	s.stopKeys()
	code, got = s.send(http.MethodPost, "/key/generate", master, `{}`)
	s.refused(code, got, http.StatusServiceUnavailable,
		envelope{"a service that is needed cannot be reached; try again", "no_db_connection", "None", "503"})
}
