package dev

import (
	"net/http"
	"testing"
)

// TestEveryServiceKnowsTheScopes has the gateway's, finance's and an administrator's
// token read and change something at each service, over REST, and then guesses until
// the address is told to wait, which locks nobody out who has a token.
func TestEveryServiceKnowsTheScopes(t *testing.T) {
	t.Parallel()
	const opsToken = "operator-canary-012345678"
	s := newSuite(t)
	s.env["LLM_PROXY_ADMIN_TOKENS"] = "gateway:issue:" + gatewayToken + ",finance:read:" + financeToken + ",ops:admin:" + opsToken
	s.env["LLM_PROXY_AUTH_FAILURES"] = "2"
	for _, tt := range []struct {
		service, path, method, change string
		issues                        int // what the gateway gets for the change
	}{
		{"keysvc", "/v1/keys", http.MethodPut, "/v1/teams/acme", http.StatusOK},
		{"proxysvc", "/v1/spend", http.MethodPost, "/v1/sessions/s-1:end", http.StatusOK},
		{"billingsvc", "/v1/balances", http.MethodPost, "/v1/billing:sync", http.StatusForbidden},
		{"outboxsvc", "/v1/outbox/stats", http.MethodPost, "/v1/outbox:deliver", http.StatusForbidden},
	} {
		base := "http://" + s.start(tt.service).http
		want := func(who, token, method, path string, status int) {
			t.Helper()
			resp := call(t, method, base+path, token, "{}")
			defer resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("%s: %s %s of %s = %d, want %d", tt.service, method, path, who, resp.StatusCode, status)
			}
		}
		want("finance", financeToken, http.MethodGet, tt.path, http.StatusOK)
		want("finance", financeToken, tt.method, tt.change, http.StatusForbidden)
		want("the gateway", gatewayToken, http.MethodGet, tt.path, http.StatusForbidden)
		want("the gateway", gatewayToken, tt.method, tt.change, tt.issues)
		want("an administrator", opsToken, http.MethodGet, tt.path, http.StatusOK)
		want("an administrator", opsToken, tt.method, tt.change, http.StatusOK)
		for _, status := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests} {
			want("a stranger", wrongKey, http.MethodGet, tt.path, status)
		}
		want("an administrator beside it", opsToken, http.MethodGet, tt.path, http.StatusOK)
		want("a service", serviceToken, http.MethodGet, tt.path, http.StatusOK)
	}
}
