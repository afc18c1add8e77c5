package rpc_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// FuzzRESTBodies sends any body to every route that takes one. Whatever it is,
// the answer is JSON and never says that the service failed, and the key and the
// team that the routes are about can be read afterwards.
func FuzzRESTBodies(f *testing.F) {
	routes := []struct{ method, path string }{
		{"POST", "/v1/keys"},
		{"POST", "/v1/sessions/sess-1/key"},
		{"PATCH", "/v1/keys/KEY"},
		{"POST", "/v1/keys/KEY/rotate"},
		{"POST", "/v1/keys/KEY/block"},
		{"POST", "/v1/keys:verify"},
		{"POST", "/v1/keys:revoke"},
		{"PUT", "/v1/teams/org-1"},
		{"PATCH", "/v1/teams/org-1"},
		{"POST", "/v1/teams/org-1/status"},
	}
	for i := range routes {
		for _, body := range []string{
			`{}`, `null`, `[]`, `{"key_id":"x"`, `{"team_id":"org-1","duration":"-1","metadata":{"a":{"b":[1e300,null,"\u0000"]}}}`,
			`{"limits":{"max_budget_nano_usd":"-9223372036854775808","budget_limits":[{"max_budget_nano_usd":1,"budget_duration":"9223372036854775807mo"}]}}`,
			`{"limits":{"temp_budget_increase_nano_usd":1,"temp_budget_expires_at":"9999-12-31T23:59:59.999999999Z"}}`,
			`{"limits":{"temp_budget_increase_nano_usd":1,"temp_budget_expires_at":"0001-01-01T00:00:00Z"}}`,
			`{"allowed_cidrs":["::/0","fe80::1%a"],"allowed_routes":["/*"],"aliases":{"":""},"models":["\ud800"]}`,
			`{"grace_period":"2w","idempotency_key":"a","update_mask":"limits,metadata","key":{"limits":{"model_rpm_limit":{"m":1}}}}`,
			`{"status":"TEAM_STATUS_BLOCKED","reason":"\u202e"}`, `{"status":77}`, `{"key_ids":["x"],"tokens":["y"],"user_id":"z"}`,
		} {
			f.Add(i, body)
		}
	}
	s := start(f, options{})
	s.issue(f, "sess-1")
	kept, err := s.keys.CreateKey(f.Context(), &keysv1.CreateKeyRequest{KeyAlias: "kept"})
	if err != nil {
		f.Fatal(err)
	}
	keyID := kept.GetKey().GetKeyId()
	f.Fuzz(func(t *testing.T, route int, body string) {
		r := routes[uint(route)%uint(len(routes))]
		path := strings.Replace(r.path, "KEY", keyID, 1)
		req, err := http.NewRequestWithContext(t.Context(), r.method, s.http+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", bearer)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || !json.Valid(answer) || resp.StatusCode >= 500 {
			t.Errorf("%s %s %q = %d %s, %v", r.method, path, body, resp.StatusCode, answer, err)
		}
		if _, err := s.keys.GetKey(t.Context(), &keysv1.GetKeyRequest{KeyId: keyID}); err != nil {
			t.Errorf("after %s %s %q the key cannot be read: %v", r.method, path, body, err)
		}
		if _, err := s.teams.GetTeam(t.Context(), &keysv1.GetTeamRequest{TeamId: "org-1"}); err != nil {
			t.Errorf("after %s %s %q the team cannot be read: %v", r.method, path, body, err)
		}
		if _, err := s.keys.ListAudit(t.Context(), &keysv1.ListAuditRequest{PageSize: 1}); err != nil {
			t.Errorf("after %s %s %q the audit cannot be read: %v", r.method, path, body, err)
		}
	})
}
