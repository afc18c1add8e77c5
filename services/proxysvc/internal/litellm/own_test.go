package litellm_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

func TestAVirtualKeySeesItselfAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key, other := s.generate(`{"key_alias":"mine","max_budget":5}`), s.generate(`{"key_alias":"other"}`)
	s.spent(&ledger.Settlement{Request: ledger.Request{KeyID: "key_mine"}, Cost: 2e9, EndedAt: today})
	for query, shown := range map[string]string{
		"":                              virtualkey.Token(key),
		"?key=" + key:                   key,
		"?key=" + virtualkey.Token(key): virtualkey.Token(key),
	} {
		for _, header := range []string{"Authorization", "x-api-key", "X-Litellm-Api-Key"} {
			value := key
			if header == "Authorization" {
				value = "Bearer " + key
			}
			code, got := s.do(http.MethodGet, "/key/info"+query, "", http.Header{http.CanonicalHeaderKey(header): {value}})
			body, _ := got.(map[string]any)
			info, _ := body["info"].(map[string]any)
			if code != 200 || body["key"] != shown {
				t.Fatalf("%s in %s: %d %v", query, header, code, got)
			}
			s.want(pick(info, "key_alias", "spend", "max_budget"), `{"key_alias":"mine","spend":2,"max_budget":5}`)
		}
	}
	for _, asked := range []string{other, virtualkey.Token(other), "other", "key_other"} {
		code, got := s.send(http.MethodGet, "/key/info?key="+asked, key, "")
		s.refused(code, got, 403, envelope{"You are not allowed to access this key's info. Your role=internal_user", "auth_error", "None", "403"})
	}
	code, got := s.send(http.MethodPost, "/key/health", key, `{}`)
	s.want(got, `{"key":"healthy","logging_callbacks":null}`)
	if code != 200 {
		t.Errorf("health: %d", code)
	}
	// Its old secret shows it too, while that works.
	s.must(http.MethodPost, "/key/regenerate", `{"key":"`+key+`"}`)
	if code, got := s.send(http.MethodGet, "/key/info?key="+key, key, ""); code != 200 {
		t.Errorf("with the old secret: %d %v", code, got)
	}
}

func TestUnknownVirtualKeysAreRefusedAlike(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	blocked, revoked := s.generate(`{"blocked":true}`), s.generate(`{"key_alias":"gone"}`)
	s.must(http.MethodPost, "/key/delete", `{"key_aliases":["gone"]}`)
	var first map[string]any
	for _, key := range []string{"", "sk-malformed", virtualkey.New().Reveal(), blocked, revoked} {
		code, got := s.send(http.MethodGet, "/key/info", key, "")
		if first == nil {
			first = got
		}
		if diff := cmp.Diff(first, got); code != 401 || diff != "" {
			t.Errorf("%.12s: %d, differs (-first +this):\n%s", key, code, diff)
		}
	}
}

// TestEveryRouteRefusesAVirtualKey walks the routes of the contract with a key
// that lives.
func TestEveryRouteRefusesAVirtualKey(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"mine"}`)
	routes := routesOf(t)
	if len(routes) < 45 {
		t.Fatalf("%d routes: the test would prove little", len(routes))
	}
	for _, r := range routes {
		method, path, _ := strings.Cut(r, " ")
		if path == "/key/info" || path == "/key/health" {
			continue
		}
		code, got := s.send(method, strings.Replace(path, "{key}", key, 1), key, `{}`)
		if code != http.StatusUnauthorized {
			t.Errorf("%s: %d %v", r, code, got)
		}
	}
}

func TestAKeysOwnRulesHoldForItsInfo(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	key := s.generate(`{"key_alias":"mine","allowed_routes":["/v1/messages"]}`)
	code, got := s.send(http.MethodGet, "/key/info", key, "")
	s.refused(code, got, 403, envelope{"this key may not call /key/info", "auth_error", "None", "403"})
	s.keysvc.keys[0].AllowedRoutes = []string{"info_routes"}
	if code, got := s.send(http.MethodGet, "/key/info", key, ""); code != 200 {
		t.Errorf("with info_routes: %d %v", code, got)
	}
	s.keysvc.keys[0].AllowedCidrs = []string{"10.0.0.0/8"}
	code, got = s.send(http.MethodGet, "/key/info", key, "")
	s.refused(code, got, 403, envelope{"this key is tied to networks: its info is for administrators", "auth_error", "None", "403"})
}
