package dev

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestALostReplyLeavesOneLiveKeyAndItsAudit issues a session's key over the proxy's
// REST, as a gateway that never got the first reply, and reads what the audit has.
func TestALostReplyLeavesOneLiveKeyAndItsAudit(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.env["LLM_PROXY_ADMIN_TOKENS"] = "gateway:issue:" + gatewayToken + ",finance:read:" + financeToken
	s.start("keysvc")
	proxysvc := s.start("proxysvc")
	base := "http://" + proxysvc.http
	issue := func(requestID string) (keyID, secret string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/sessions/s-1/key", strings.NewReader(`{"team_id":"acme"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + gatewayToken}, "Idempotency-Key": {"start"}, "X-Request-Id": {requestID}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got struct {
			Key struct {
				KeyID string `json:"key_id"`
			}
			Secret string
		}
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%d, %v", resp.StatusCode, err)
		}
		return got.Key.KeyID, got.Secret
	}
	id, lost := issue("ask-1")
	again, secret := issue("ask-2")
	if again != id || secret == lost {
		t.Errorf("the repeat has the key %s, want %s with another secret", again, id)
	}
	list := answer(t, call(t, http.MethodGet, base+"/v1/keys?user_id=s-1", financeToken, ""))
	if keys, ok := list["keys"].([]any); !ok || len(keys) != 1 {
		t.Errorf("the session has the keys %v, want one", list["keys"])
	}
	poll(t, func() bool { return post(t, proxysvc.http, lost, hello).StatusCode == http.StatusUnauthorized })
	if got := post(t, proxysvc.http, secret, hello).StatusCode; got != http.StatusOK {
		t.Errorf("the secret that arrived: %d", got)
	}

	audit := answer(t, call(t, http.MethodGet, base+"/v1/audit?entity="+id, financeToken, ""))
	var rows []string
	entries, _ := audit["entries"].([]any)
	for _, e := range entries {
		row, ok := e.(map[string]any)
		if !ok {
			t.Fatalf("%v is no entry", e)
		}
		what := []string{fmt.Sprint(row["actor"], " ", row["request_id"], " ", row["action"])}
		for _, side := range []string{"key_before", "key_after"} {
			if row[side] != nil {
				what = append(what, side)
			}
		}
		rows = append(rows, strings.Join(what, " "))
	}
	want := []string{"gateway ask-2 key.renew key_before key_after", "gateway ask-1 key.issue key_after"}
	if !slices.Equal(rows, want) {
		t.Errorf("the audit has %q, want %q", rows, want)
	}
	if text, err := json.Marshal(audit); err != nil || strings.Contains(string(text), lost) || strings.Contains(string(text), secret) {
		t.Errorf("the audit holds a secret, or %v", err)
	}
}
