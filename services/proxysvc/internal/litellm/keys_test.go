package litellm_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

const everyLimit = `"max_budget":5,"soft_budget":3,"budget_duration":"7d","budget_limits":[{"budget_duration":"1d","max_budget":1.5},{"max_budget":9}],
	"tpm_limit":100,"rpm_limit":10,"max_parallel_requests":2,"model_max_budget":{"m":{"budget_limit":0.1,"time_period":"1d"}},
	"model_rpm_limit":{"m":5},"model_tpm_limit":{"m":50},"temp_budget_increase":2,"temp_budget_expiry":"2026-06-01"`

func limits() *keysv1.Limits {
	return &keysv1.Limits{
		MaxBudgetNanoUsd: proto.Int64(5e9), SoftBudgetNanoUsd: proto.Int64(3e9), BudgetDuration: "7d",
		BudgetLimits: []*keysv1.BudgetLimit{{MaxBudgetNanoUsd: 15e8, BudgetDuration: "1d"}, {MaxBudgetNanoUsd: 9e9}},
		TpmLimit:     proto.Int64(100), RpmLimit: proto.Int64(10), MaxParallelRequests: proto.Int64(2),
		ModelMaxBudget: map[string]*keysv1.BudgetLimit{"m": {MaxBudgetNanoUsd: 1e8, BudgetDuration: "1d"}},
		ModelRpmLimit:  map[string]int64{"m": 5}, ModelTpmLimit: map[string]int64{"m": 50},
		TempBudgetIncreaseNanoUsd: proto.Int64(2e9), TempBudgetExpiresAt: timestamppb.New(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)),
	}
}

func TestEveryLimitOfAKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	got := s.must(http.MethodPost, "/key/generate", `{"key_alias":"a","blocked":true,"key_type":"llm_api",`+everyLimit+`}`)
	if diff := cmp.Diff(limits(), s.keysvc.created.GetLimits(), protocmp.Transform()); diff != "" {
		t.Errorf("asked of the key service (-want +got):\n%s", diff)
	}
	if !s.keysvc.created.GetBlocked() || !slices.Equal(s.keysvc.created.GetAllowedRoutes(), []string{"llm_api_routes"}) {
		t.Errorf("blocked and routes: %v", s.keysvc.created)
	}
	s.want(pick(got, "soft_budget", "budget_limits", "model_max_budget", "model_rpm_limit", "model_tpm_limit", "blocked", "allowed_routes"),
		`{"soft_budget":3,"budget_limits":[{"budget_duration":"1d","max_budget":1.5},{"budget_duration":null,"max_budget":9}],
		"model_max_budget":{"m":{"budget_limit":0.1,"time_period":"1d"}},"model_rpm_limit":{"m":5},"model_tpm_limit":{"m":50},
		"blocked":true,"allowed_routes":["llm_api_routes"]}`)
	info, _ := s.must(http.MethodGet, "/key/info?key="+fmt.Sprint(got["key"]), "")["info"].(map[string]any)
	s.want(pick(info, "metadata", "litellm_budget_table", "budget_reset_at", "spend", "blocked"),
		`{"metadata":{"model_rpm_limit":{"m":5},"model_tpm_limit":{"m":50},"temp_budget_increase":2,"temp_budget_expiry":"2026-06-01T00:00:00.000000Z"},
		"litellm_budget_table":{"soft_budget":3},"budget_reset_at":"2026-05-18T00:00:00Z","spend":0,"blocked":true}`)
}

// pick is a part of an answer.
func pick(from map[string]any, names ...string) map[string]any {
	out := map[string]any{}
	for _, name := range names {
		v, ok := from[name]
		if !ok {
			v = "missing"
		}
		out[name] = v
	}
	return out
}

// TestSpendIsThatOfTheWindow spends before and in the window of a budget: LiteLLM
// sets spend to zero when the window begins.
func TestSpendIsThatOfTheWindow(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"a","max_budget":5,"budget_duration":"7d"}`)
	for _, at := range []time.Time{today.AddDate(0, 0, -10), today} {
		s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "key_a"}, Cost: 1e9, EndedAt: at})
	}
	info, _ := s.must(http.MethodGet, "/key/info?key="+key, "")["info"].(map[string]any)
	s.want(pick(info, "spend", "budget_reset_at"), `{"spend":1,"budget_reset_at":"2026-05-18T00:00:00Z"}`)
}

func TestServiceAccountKeys(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	got := s.must(http.MethodPost, "/key/service-account/generate", `{"team_id":"org-1","key_alias":"ci"}`)
	if key, _ := got["key"].(string); !virtualkey.Valid(key) || got["team_id"] != "org-1" || got["user_id"] != nil {
		t.Errorf("answer %v", got)
	}
	for body, message := range map[string]string{
		`{}`:                                "team_id is required for service account keys",
		`{"team_id":"org-1","user_id":"u"}`: "user_id cannot be set for service account keys",
	} {
		code, got := s.send(http.MethodPost, "/key/service-account/generate", master, body)
		s.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
}

func TestWhatIsNotKeptIsRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{}`)
	s.must(http.MethodPost, "/team/new", `{"team_id":"org-1"}`)
	s.keysvc.created = nil
	const spend = "what was spent is a ledger, which is never changed: to let a key go on, raise its max_budget, give it a temp_budget_increase, or make a new key"
	notKept := func(name string) string {
		return name + " is not kept here, so what was asked for would be without it: leave it out"
	}
	for _, tt := range []struct{ path, field, message string }{
		{"/key/generate", `"guardrails":["pii"]`, notKept("guardrails")},
		{"/key/generate", `"enforced_params":["user"]`, notKept("enforced_params")},
		{"/key/generate", `"policies":["p"]`, notKept("policies")},
		{"/key/generate", `"object_permission":{"mcp_servers":["x"]}`, notKept("object_permission")},
		{"/key/generate", `"budget_id":"b"`, notKept("budget_id")},
		{"/key/generate", `"auto_rotate":true`, notKept("auto_rotate")},
		{"/key/generate", `"spend":1`, spend},
		{"/key/update", `"spend":0`, spend},
		{"/key/update", `"guardrails":["pii"]`, notKept("guardrails")},
		{"/key/" + key + "/reset_spend", `"reset_to":0`, spend},
		{"/global/spend/reset", `"a":1`, spend},
		{"/key/regenerate", `"new_key":"sk-mine"`, "new_key and new_master_key cannot be chosen here: leave them out and use the key of the answer"},
		{"/team/new", `"model_aliases":{"a":"b"}`, notKept("model_aliases")},
		{"/team/new", `"tags":["a"]`, notKept("tags")},
		{"/team/update", `"team_member_budget":1`, notKept("team_member_budget")},
	} {
		t.Run(tt.path+" "+tt.field, func(t *testing.T) {
			s := s.in(t)
			body := `{"key":"` + key + `","team_id":"org-1",` + tt.field + `}`
			if tt.path == "/key/generate" {
				body = `{` + tt.field + `}`
			}
			code, got := s.send(http.MethodPost, tt.path, master, body)
			s.refused(code, got, 400, envelope{tt.message, "bad_request_error", "None", "400"})
		})
	}
	if s.keysvc.created != nil || s.keysvc.updated != nil || s.keysvc.rotated != nil || s.keysvc.teams.updated != nil {
		t.Error("the key service was asked all the same")
	}
}

func TestUpdateKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"a","duration":"24h","max_budget":5,"models":["m"],"tags":["t"],"metadata":{"x":1},"aliases":{"f":"g"}}`)
	for _, tt := range []struct {
		name, body string
		key        *keysv1.Key
		paths      []string
	}{
		{"one limit", `"max_budget":7.5`, &keysv1.Key{Limits: &keysv1.Limits{MaxBudgetNanoUsd: proto.Int64(75e8)}}, []string{"limits.max_budget_nano_usd"}},
		{"nulls and unknown fields change nothing", `"max_budget":null,"models":null,"metadata":null,"tags":null,"blocked":null,"nonsense":1`, nil, nil},
		{"empty text is null", `"max_budget":""`, nil, nil},
		{
			"empty lists and objects clear", `"models":[],"tags":[],"metadata":{},"aliases":{},"budget_limits":[]`,
			&keysv1.Key{Limits: &keysv1.Limits{}, Metadata: &structpb.Struct{}},
			[]string{"aliases", "limits.budget_limits", "metadata", "models", "tags"},
		},
		{
			"names", `"key_alias":"b","user_id":"u","team_id":"org-2","aliases":{"f":"h"},"allowed_routes":["/v1/messages"],"blocked":true`,
			&keysv1.Key{KeyAlias: "b", UserId: "u", TeamId: "org-2", Aliases: map[string]string{"f": "h"}, AllowedRoutes: []string{"/v1/messages"}, Blocked: true, Limits: &keysv1.Limits{}},
			[]string{"aliases", "allowed_routes", "blocked", "key_alias", "team_id", "user_id"},
		},
		{"a type of key", `"key_type":"read_only"`, &keysv1.Key{AllowedRoutes: []string{"info_routes"}, Limits: &keysv1.Limits{}}, []string{"allowed_routes"}},
		{"a duration", `"duration":"7d"`, &keysv1.Key{Duration: "7d", Limits: &keysv1.Limits{}}, []string{"duration"}},
		{"an explicit null ends the expiry", `"duration":null`, &keysv1.Key{Duration: "-1", Limits: &keysv1.Limits{}}, []string{"duration"}},
		{"every limit", everyLimit, &keysv1.Key{Limits: limits()}, []string{
			"limits.budget_duration", "limits.budget_limits", "limits.max_budget_nano_usd", "limits.max_parallel_requests", "limits.model_max_budget",
			"limits.model_rpm_limit", "limits.model_tpm_limit", "limits.rpm_limit", "limits.soft_budget_nano_usd", "limits.temp_budget_expires_at",
			"limits.temp_budget_increase_nano_usd", "limits.tpm_limit",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := s.in(t)
			s.keysvc.updated = nil
			got := s.must(http.MethodPost, "/key/update", `{"key":"`+key+`",`+tt.body+`}`)
			if got["key"] != key || got["token"] != virtualkey.Token(key) {
				t.Errorf("answer %v", got)
			}
			var want *keysv1.UpdateKeyRequest
			if tt.key != nil {
				tt.key.KeyId = "key_a"
				want = &keysv1.UpdateKeyRequest{Key: tt.key, UpdateMask: &fieldmaskpb.FieldMask{Paths: tt.paths}}
			}
			if s.keysvc.updated != nil {
				slices.Sort(s.keysvc.updated.GetUpdateMask().GetPaths())
			}
			if diff := cmp.Diff(want, s.keysvc.updated, protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
				t.Errorf("asked of the key service (-want +got):\n%s", diff)
			}
		})
	}
	if _, ok := s.keysvc.teams.byID["org-2"]; !ok {
		t.Error("the new team was not made")
	}
	s.want(pick(s.must(http.MethodPost, "/key/update", `{"key":"`+virtualkey.Token(key)+`"}`), "max_budget", "expires", "user_id", "models"),
		`{"max_budget":5,"expires":null,"user_id":"u","models":[]}`)
}

func TestUpdatesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{}`)
	for _, tt := range []struct {
		name, body, message, kind string
		status                    int
	}{
		{"no key", `{}`, "key must be given: a key or its token", "bad_request_error", 400},
		{"an unknown key", `{"key":"sk-nobody"}`, "Key not found in database", "not_found_error", 404},
		{"a number as duration", `{"key":"KEY","duration":7}`, "duration must be a text such as 24h", "bad_request_error", 400},
		{"half an increase", `{"key":"KEY","temp_budget_increase":7}`, "temp_budget_increase and temp_budget_expiry are given together or not at all", "bad_request_error", 400},
		{"an increase until nonsense", `{"key":"KEY","temp_budget_increase":7,"temp_budget_expiry":"soon"}`, `temp_budget_expiry must be an instant such as 2026-05-01T12:00:00Z. Received: "soon"`, "bad_request_error", 400},
		{"a budget of a model without a number", `{"key":"KEY","model_max_budget":{"m":{"time_period":"1d"}}}`, "model_max_budget needs a budget with a number in max_budget or budget_limit", "bad_request_error", 400},
		{"a negative window", `{"key":"KEY","budget_limits":[{"max_budget":-1}]}`, "budget_limits[0] cannot be negative. Received: -1", "bad_request_error", 400},
		{"a limit of a model that is text", `{"key":"KEY","model_rpm_limit":{"m":"5"}}`, "model_rpm_limit needs a number for each model", "bad_request_error", 400},
		{"numbers as models", `{"key":"KEY","models":[1]}`, "models must be a list of texts", "bad_request_error", 400},
		{"numbers as aliases", `{"key":"KEY","aliases":{"a":1}}`, "aliases must be an object of texts", "bad_request_error", 400},
		{"an unknown type of key", `{"key":"KEY","key_type":"root"}`, `key_type must be default, llm_api, management or read_only. Received: "root"`, "bad_request_error", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			code, got := s.send(http.MethodPost, "/key/update", master, strings.Replace(tt.body, "KEY", key, 1))
			s.refused(code, got, tt.status, envelope{tt.message, tt.kind, "None", fmt.Sprint(tt.status)})
		})
	}
}

// TestWhoChangedAKeyIsPassedOn sends what the audit of the key service needs.
func TestWhoChangedAKeyIsPassedOn(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{}`)
	if got := s.keysvc.by.Get("litellm-changed-by"); !slices.Equal(got, []string{"master"}) {
		t.Errorf("changed by %v, want the one who called", got)
	}
	code, _ := s.do(http.MethodPost, "/key/update", `{"key":"`+key+`","blocked":true}`, http.Header{
		"Authorization": {"Bearer " + master}, "Litellm-Changed-By": {"ann"}, "X-Request-Id": {"call-1"},
	})
	if by, id := s.keysvc.by.Get("litellm-changed-by"), s.keysvc.by.Get("x-request-id"); code != 200 || !slices.Equal(by, []string{"ann"}) || !slices.Equal(id, []string{"call-1"}) {
		t.Errorf("%d, changed by %v in call %v", code, by, id)
	}
	if code, _ = s.do(http.MethodPost, "/key/generate", `{}`, http.Header{"Authorization": {"Bearer " + master}, "Idempotency-Key": {"again"}}); code != 200 || s.keysvc.created.GetIdempotencyKey() != "again" {
		t.Errorf("%d, idempotency key %q", code, s.keysvc.created.GetIdempotencyKey())
	}
}

func TestBulkUpdate(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"a"}`)
	got := s.must(http.MethodPost, "/key/bulk_update", `{"keys":[{"key":"`+key+`","max_budget":1,"tags":["x"]},{"key":"sk-nobody","max_budget":1}]}`)
	done, _ := got["successful_updates"].([]any)
	first, _ := done[0].(map[string]any)
	info, _ := first["key_info"].(map[string]any)
	s.want(pick(info, "max_budget", "key_alias"), `{"max_budget":1,"key_alias":"a"}`)
	s.want(pick(got, "total_requested", "failed_updates"),
		`{"total_requested":2,"failed_updates":[{"key":"sk-nobody","key_info":null,"failed_reason":"Key not found in database"}]}`)
	code, refusal := s.send(http.MethodPost, "/key/bulk_update", master, `{"keys":[]}`)
	s.refused(code, refusal, 400, envelope{"keys must be given, at most 500", "bad_request_error", "None", "400"})
}

func TestBlockKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"a"}`)
	for _, passed := range []string{key, virtualkey.Token(key)} {
		for path, want := range map[string]bool{"/key/block": true, "/key/unblock": false} {
			got := s.must(http.MethodPost, path, `{"key":"`+passed+`"}`)
			if got["blocked"] != want || got["token"] != virtualkey.Token(key) || s.keysvc.keys[0].GetBlocked() != want {
				t.Errorf("%s: %v", path, got)
			}
		}
	}
	code, got := s.send(http.MethodPost, "/key/block", master, `{"key":"a"}`)
	s.refused(code, got, 400, envelope{"Invalid key format.", "bad_request_error", "None", "400"})
	code, got = s.send(http.MethodPost, "/key/unblock", master, `{"key":"sk-nobody"}`)
	s.refused(code, got, 404, envelope{"Key not found in database", "not_found_error", "None", "404"})
}

func TestRegenerateKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"a","max_budget":5}`)
	s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "key_a"}, Cost: 1e9, EndedAt: today})
	for _, in := range []func(key string) (path, body string){
		func(key string) (string, string) {
			return "/key/" + key + "/regenerate", `{"grace_period":"24h","max_budget":6}`
		},
		func(key string) (string, string) { return "/key/regenerate", `{"key":"` + key + `"}` },
		func(key string) (string, string) {
			return "/key/" + virtualkey.Token(key) + "/regenerate", `{"duration":null}`
		},
	} {
		path, body := in(key)
		got := s.must(http.MethodPost, path, body)
		fresh, _ := got["key"].(string)
		if !virtualkey.Valid(fresh) || fresh == key || got["token_id"] != virtualkey.Token(fresh) {
			t.Fatalf("%s: %v", path, got)
		}
		s.want(pick(got, "key_alias", "max_budget", "spend"), `{"key_alias":"a","max_budget":6,"spend":1}`)
		if grace := s.keysvc.rotated.GetGracePeriod(); (grace == "24h") != strings.Contains(body, "24h") {
			t.Errorf("%s: grace %q", path, grace)
		}
		key = fresh
	}
	code, got := s.send(http.MethodPost, "/key/sk-nobody-knows/regenerate", master, `{}`)
	s.refused(code, got, 404, envelope{"Key sk-... (token " + virtualkey.Token("sk-nobody-knows") + ") not found.", "not_found_error", "None", "404"})
}

func TestListKeys(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	var tokens []string
	for _, alias := range []string{"Bob", "alice", "carol"} {
		tokens = append(tokens, virtualkey.Token(s.generate(`{"key_alias":"`+alias+`","team_id":"org-1","user_id":"`+alias+`"}`)))
	}
	tokens = append(tokens, virtualkey.Token(s.generate(`{}`)))
	gone := s.generate(`{"key_alias":"gone"}`)
	s.must(http.MethodPost, "/key/delete", `{"keys":["`+gone+`"]}`)
	list := func(query string, total, page, pages int, want ...string) {
		t.Helper()
		if want == nil {
			want = []string{}
		}
		s.want(s.must(http.MethodGet, "/key/list?"+query, ""),
			fmt.Sprintf(`{"keys":%s,"total_count":%d,"current_page":%d,"total_pages":%d}`, strings.ReplaceAll(fmt.Sprintf("%q", want), " ", ","), total, page, pages))
	}
	list("", 4, 1, 1, tokens[3], tokens[2], tokens[1], tokens[0])
	list("size=3", 4, 1, 2, tokens[3], tokens[2], tokens[1])
	list("size=3&page=2", 4, 2, 2, tokens[0])
	list("size=3&page=3", 4, 3, 2)
	list("team_id=org-1&sort_by=key_alias&sort_order=asc", 3, 1, 1, tokens[0], tokens[1], tokens[2])
	list("user_id=alice", 1, 1, 1, tokens[1])
	list("key_alias=carol", 1, 1, 1, tokens[2])
	list("key_hash="+tokens[0], 1, 1, 1, tokens[0])
	list("status=deleted", 1, 1, 1, virtualkey.Token(gone))
	got := s.must(http.MethodGet, "/key/list?return_full_object=True&user_id=alice", "")
	rows, _ := got["keys"].([]any)
	row, _ := rows[0].(map[string]any)
	s.want(pick(row, "token", "key_alias", "team_id", "spend"), `{"token":"`+tokens[1]+`","key_alias":"alice","team_id":"org-1","spend":0}`)
	for query, message := range map[string]string{
		"size=101":         "a page is numbered from 1 and has 1 to 100 entries",
		"page=-1":          "a page is numbered from 1 and has 1 to 100 entries",
		"sort_by=spend":    `sort_by must be created_at, updated_at, key_alias or max_budget. Received: "spend"`,
		"sort_order=up":    `sort_order must be asc or desc. Received: "up"`,
		"status=forgotten": `status must be deleted, or not given. Received: "forgotten"`,
	} {
		code, got := s.send(http.MethodGet, "/key/list?"+query, master, "")
		s.refused(code, got, 400, envelope{message, "bad_request_error", "None", "400"})
	}
	s.want(s.must(http.MethodGet, "/key/aliases", ""), `{"aliases":["Bob","alice","carol"],"total_count":3,"current_page":1,"total_pages":1,"size":50}`)
	s.want(s.must(http.MethodGet, "/key/aliases?search=O&size=1&page=2", ""), `{"aliases":["carol"],"total_count":2,"current_page":2,"total_pages":2,"size":1}`)
}

func TestSeveralKeysInfo(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"a"}`)
	got := s.must(http.MethodPost, "/v2/key/info", `{"keys":["`+key+`","sk-nobody"]}`)
	info, _ := got["info"].([]any)
	if len(info) != 1 {
		t.Fatalf("info %v", got)
	}
	row, _ := info[0].(map[string]any)
	s.want(pick(row, "key_alias", "token"), `{"key_alias":"a","token":"missing"}`)
	for body, want := range map[string]envelope{
		`{}`:                     {"keys must be given, at most 500", "bad_request_error", "None", "400"},
		`{"keys":["sk-nobody"]}`: {"No keys found", "not_found_error", "None", "404"},
	} {
		code, got := s.send(http.MethodPost, "/v2/key/info", master, body)
		s.refused(code, got, map[string]int{"400": 400, "404": 404}[want.code], want)
	}
}
