package rpc_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// call makes a REST call and returns status and JSON object.
func (s server) call(t *testing.T, method, path, auth, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", auth)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatalf("%s %s: %s: %v", method, path, resp.Status, err)
	}
	return resp.StatusCode, doc
}

const bearer = "Bearer " + token

func TestRESTSpeaksSnakeCase(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	code, doc := s.call(t, "POST", "/v1/sessions/sess%201/key", bearer,
		`{"team_id":"org-1","limits":{"max_budget_nano_usd":"5000000000"},"metadata":{"a":{"b":[1]}},"duration":"30min"}`)
	if code != http.StatusOK {
		t.Fatalf("%d %v", code, doc)
	}
	k, _ := doc["key"].(map[string]any)
	secret, _ := doc["secret"].(string)
	for name, want := range map[string]any{
		"user_id": "sess 1", "team_id": "org-1", "duration": "30min", "blocked": false, "revoked_at": nil,
		"metadata": map[string]any{"a": map[string]any{"b": []any{1.0}}},
		"models":   []any{}, "key_name": "sk-..." + secret[len(secret)-4:],
		"limits": map[string]any{
			"max_budget_nano_usd": "5000000000", "budget_duration": "", "budget_limits": []any{}, "budget_mode": "BUDGET_MODE_UNSPECIFIED",
			"model_max_budget": map[string]any{}, "model_rpm_limit": map[string]any{}, "model_tpm_limit": map[string]any{},
			"temp_budget_expires_at": nil,
		},
		"allowed_cidrs": []any{}, "allowed_routes": []any{}, "rotated_at": nil,
	} {
		if diff := cmp.Diff(want, k[name]); diff != "" {
			t.Errorf("key.%s (-want +got):\n%s", name, diff)
		}
	}
	if env, _ := doc["env"].(map[string]any); env["LLM_PROXY_API_KEY"] != secret {
		t.Errorf("env = %v, want the secret in it", env)
	}
	keyID, _ := k["key_id"].(string)
	if code, doc = s.call(t, "GET", "/v1/keys/"+keyID, bearer, ""); code != http.StatusOK {
		t.Errorf("get: %d %v", code, doc)
	}
	if code, doc = s.call(t, "POST", "/v1/keys:revoke", bearer, `{"user_id":"sess 1"}`); code != http.StatusOK || doc["revision"] != "1" {
		t.Errorf("revoke: %d %v, want revision 1", code, doc)
	}
	if code, doc = s.call(t, "PUT", "/v1/teams/org-1", bearer, `{}`); code != http.StatusOK || doc["created"] != false {
		t.Errorf("ensure: %d %v, want it not created", code, doc)
	}
	if code, doc = s.call(t, "POST", "/v1/teams/org-1/status", bearer, `{"status":"TEAM_STATUS_BLOCKED"}`); code != http.StatusOK || doc["revision"] != "2" {
		t.Errorf("status: %d %v, want revision 2", code, doc)
	}
}

func TestRESTErrorsHaveACodeAndAText(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, tt := range []struct {
		name, method, path, auth, body string
		status                         int
		code                           float64
		text                           string
	}{
		{"no credentials", "GET", "/v1/keys", "", "", 401, 16, "a master key is needed in `authorization: Bearer`"},
		{"unknown key", "GET", "/v1/keys/nope", bearer, "", 404, 5, "key of this name not found"},
		{"unknown team", "POST", "/v1/keys", bearer, `{"team_id":"org-9"}`, 404, 5, "team org-9 not found; make it with EnsureTeam first"},
		{"negative budget", "POST", "/v1/keys", bearer, `{"limits":{"max_budget_nano_usd":"-1000000000"}}`, 400, 3, "max_budget cannot be negative. Received: -1"},
		{"wrong secret", "POST", "/v1/keys:verify", bearer, `{"token":"x"}`, 401, 16, "invalid api key"},
		{"wrong page", "GET", "/v1/keys?page_size=5000", bearer, "", 400, 3, "page_size 5000 is not from 1 to 1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, doc := s.call(t, tt.method, tt.path, tt.auth, tt.body)
			if status != tt.status || doc["code"] != tt.code || doc["message"] != tt.text {
				t.Errorf("%s %s = %d %v, want %d, code %v, %q", tt.method, tt.path, status, doc, tt.status, tt.code, tt.text)
			}
		})
	}
}

func TestRESTWatchIsAStreamOfJSONLines(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.http+"/v1/keys:watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", bearer)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]map[string]any
	if err := json.Unmarshal(line, &doc); err != nil || doc["result"]["heartbeat"] != true || doc["result"]["revision"] != "0" {
		t.Errorf("first line = %s, %v, want a heartbeat with revision 0", line, err)
	}
}
