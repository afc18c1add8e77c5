package dev

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/gen"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// ofSandboxes are the routes that a virtual key may call: by method, since LiteLLM's
// key info, which shows it itself only, is a GET, and its check of a key a POST.
var ofSandboxes = []string{
	"POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models", "GET /key/info", "POST /key/health",
}

// TestNoSandboxReachesAnAdminRoute walks every route of the OpenAPI document, on
// the proxy and on keysvc, with no key, a sandbox's, another team's, an expired
// and a revoked one, and one that is none: only what is a sandbox's answers.
func TestNoSandboxReachesAnAdminRoute(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.env["LLM_PROXY_AUTH_FAILURES"] = "0" // each credential is refused for what it is
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
	for _, ended := range []string{"an expired one", "a revoked one"} {
		awaitRefusal(t, proxysvc, secrets[ended])
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(gen.OpenAPI, &document); err != nil {
		t.Fatal(err)
	}
	walked, spared := 0, 0
	for path, methods := range document.Paths {
		for method := range methods {
			url := strings.ReplaceAll(path, "{log_id}", "1") // a number
			url = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(url, "s-2")
			if slices.Contains(ofSandboxes, strings.ToUpper(method)+" "+path) {
				spared++
				continue
			}
			for name, secret := range secrets {
				for _, p := range []*process{proxysvc, keysvc} {
					walked++
					resp := call(t, strings.ToUpper(method), "http://"+p.http+url, secret, "{}")
					resp.Body.Close() // only its status counts
					switch resp.StatusCode {
					case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
					default:
						t.Errorf("%s %s of %s with %s: %d", method, path, p.name, name, resp.StatusCode)
					}
				}
			}
		}
	}
	if walked < 400 || spared != len(ofSandboxes) {
		t.Errorf("%d calls were made, %d of %d routes are sandboxes'", walked, spared, len(ofSandboxes))
	}
}

// awaitRefusal waits until a key that has ended is refused.
func awaitRefusal(t *testing.T, p *process, key string) {
	t.Helper()
	poll(t, func() bool {
		resp := post(t, p.http, key, hello)
		defer resp.Body.Close() // only its status counts
		return resp.StatusCode == http.StatusUnauthorized
	})
}

// TestEveryBadKeyGetsTheSameAnswer compares what missing, malformed, unknown,
// expired and revoked keys get: the same status, the same body but for the
// request's id, the same headers.
func TestEveryBadKeyGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc, proxysvc := s.start("keysvc"), s.start("proxysvc")
	base := "http://" + proxysvc.http
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
	for _, ended := range []string{expired, revoked, blocked} {
		awaitRefusal(t, proxysvc, ended)
	}
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
