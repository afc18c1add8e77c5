package dev

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/gen"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// ofSandboxes are the routes that a virtual key may call; LiteLLM's key info
// shows it itself only.
var ofSandboxes = regexp.MustCompile(`^/v1/(messages|messages/count_tokens|models)$|^/key/info$|^/v2/key/info$|^/key/health$|^/health`)

// TestNoSandboxReachesAnAdminRoute walks every route of the OpenAPI document, on
// the proxy and on keysvc, with no key, a sandbox's, another team's, an expired
// and a revoked one, and one that is none: only what is a sandbox's answers.
func TestNoSandboxReachesAnAdminRoute(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	proxysvc := s.start("proxysvc")
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	issue := func(user, team, duration string) string {
		resp, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: user, TeamId: team, Duration: duration})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetSecret()
	}
	secrets := map[string]string{
		"no key": "", "a sandbox's": issue("s-1", "acme", "1h"), "another team's": issue("s-2", "globex", "1h"),
		"an expired one": issue("s-3", "acme", "1s"), "a revoked one": issue("s-4", "acme", "1h"), "an unknown one": virtualkey.New().Reveal(), "none": "sk-nonsense",
	}
	if _, err := keys.RevokeKeys(t.Context(), &keysv1.RevokeKeysRequest{UserId: "s-4"}); err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(gen.OpenAPI, &document); err != nil {
		t.Fatal(err)
	}
	walked := 0
	for path, methods := range document.Paths {
		for method := range methods {
			url := strings.ReplaceAll(path, "{log_id}", "1") // a number
			url = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(url, "s-2")
			if ofSandboxes.MatchString(url) {
				continue
			}
			for name, secret := range secrets {
				for _, p := range []*process{proxysvc, keysvc} {
					walked++
					resp := call(t, strings.ToUpper(method), "http://"+p.http+url, secret, "{}")
					resp.Body.Close() // only its status counts
					switch resp.StatusCode {
					case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests:
					default:
						t.Errorf("%s %s of %s with %s: %d", method, path, p.name, name, resp.StatusCode)
					}
				}
			}
		}
	}
	if walked < 400 {
		t.Errorf("only %d calls were made", walked)
	}
}

// TestEveryBadKeyGetsTheSameAnswer compares what missing, malformed, unknown,
// expired and revoked keys get: the same status, the same body but for the
// request's id, the same headers.
func TestEveryBadKeyGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	base := "http://" + s.start("proxysvc").http
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	issue := func(user, duration string) string {
		resp, err := keys.IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: user, TeamId: "acme", Duration: duration})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetSecret()
	}
	expired, revoked, blocked := issue("s-1", "1s"), issue("s-2", "1h"), issue("s-3", "1h")
	if _, err := keys.RevokeKeys(t.Context(), &keysv1.RevokeKeysRequest{UserId: "s-2"}); err != nil {
		t.Fatal(err)
	}
	list, err := keys.ListKeys(t.Context(), &keysv1.ListKeysRequest{UserId: "s-3"})
	if err != nil || len(list.GetKeys()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if _, err := keys.BlockKey(t.Context(), &keysv1.BlockKeyRequest{KeyId: list.GetKeys()[0].GetKeyId()}); err != nil {
		t.Fatal(err)
	}
	const body = `{"model":"claude-haiku-4-5","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}`
	poll(t, func() bool {
		return call(t, http.MethodPost, base+"/v1/messages", expired, body).StatusCode == http.StatusUnauthorized
	})
	id := regexp.MustCompile(`req_\w+`)
	var first string
	for name, secret := range map[string]string{
		"missing": "", "malformed": "hello", "mistyped": "sk-" + strings.Repeat("a", 49), "unknown": virtualkey.New().Reveal(), "expired": expired, "revoked": revoked, "blocked": blocked,
	} {
		resp := call(t, http.MethodPost, base+"/v1/messages", secret, body)
		header := resp.Header.Clone()
		header.Del("Date")
		var got strings.Builder
		if err := header.Write(&got); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(answer(t, resp))
		if err != nil {
			t.Fatal(err)
		}
		whole := id.ReplaceAllString(resp.Status+"\n"+got.String()+string(text), "req_")
		if first == "" {
			first = whole
		}
		if whole != first || resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s:\n%s\nanother:\n%s", name, whole, first)
		}
	}
}
