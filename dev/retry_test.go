package dev

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
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
	rows := auditRows(t, audit)
	want := []string{"gateway ask-2 key.renew key_before key_after", "gateway ask-1 key.issue key_after"}
	if !slices.Equal(rows, want) {
		t.Errorf("the audit has %q, want %q", rows, want)
	}
	if text, err := json.Marshal(audit); err != nil || strings.Contains(string(text), lost) || strings.Contains(string(text), secret) {
		t.Errorf("the audit holds a secret, or %v", err)
	}
}

// auditRows are the entries of an answer: who, for whom, in which call, did what.
func auditRows(t *testing.T, audit map[string]any) (rows []string) {
	t.Helper()
	entries, _ := audit["entries"].([]any)
	for _, e := range entries {
		row, ok := e.(map[string]any)
		if !ok {
			t.Fatalf("%v is no entry", e)
		}
		what := []string{fmt.Sprint(row["actor"])}
		if by := row["changed_by"]; by != "" {
			what = append(what, fmt.Sprintf("for %s", by))
		}
		what = append(what, fmt.Sprint(row["request_id"], " ", row["action"]))
		for _, side := range []string{"key_before", "key_after"} {
			if row[side] != nil {
				what = append(what, side)
			}
		}
		rows = append(rows, strings.Join(what, " "))
	}
	return rows
}

// TestTheAuditKnowsWhoEndedASession ends sessions by both routes that end keys
// through the proxy's own credential, over REST and over gRPC.
func TestTheAuditKnowsWhoEndedASession(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.env["LLM_PROXY_ADMIN_TOKENS"] = "gateway:issue:" + gatewayToken
	keysvc := s.start("keysvc")
	proxysvc := s.start("proxysvc")
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	asked := func(path, requestID, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+proxysvc.http+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + gatewayToken}, "X-Request-Id": {requestID}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", path, resp.StatusCode)
		}
	}
	gateway, err := serve.Caller{Token: secret.New(gatewayToken)}.Dial(proxysvc.grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gateway.Close() })
	for session, end := range map[string]func(k *keysv1.Key){
		"ended over REST": func(k *keysv1.Key) { asked("/v1/sessions/"+k.GetUserId()+":end", "end-it", "{}") },
		"ended over gRPC": func(k *keysv1.Key) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "end-it")
			if _, err := proxyv1.NewProxyServiceClient(gateway).EndSession(ctx, &proxyv1.EndSessionRequest{UserId: k.GetUserId()}); err != nil {
				t.Fatal(err)
			}
		},
		"deleted as LiteLLM has it": func(k *keysv1.Key) { asked("/key/delete", "end-it", `{"keys":["`+k.GetToken()+`"]}`) },
	} {
		issued, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: strings.ReplaceAll(session, " ", "-"), TeamId: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		end(issued.GetKey())
		audit := answer(t, call(t, http.MethodGet, "http://"+keysvc.http+"/v1/audit?action=key.revoke&entity="+issued.GetKey().GetKeyId(), masterKey, ""))
		if rows, want := auditRows(t, audit), []string{"service for gateway end-it key.revoke key_before key_after"}; !slices.Equal(rows, want) {
			t.Errorf("%s: the audit has %q, want %q", session, rows, want)
		}
	}
}
