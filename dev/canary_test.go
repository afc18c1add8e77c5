package dev

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	sdk "github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	outboxv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// canaries are planted secrets by name, and everything that was seen of the suite,
// by place.
type canaries struct {
	t       *testing.T
	secrets map[string]string
	mu      sync.Mutex
	places  map[string][]string
	bytes   int
}

// see keeps what was found at a place.
func (c *canaries) see(place, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places[place] = append(c.places[place], text)
	c.bytes += len(text)
}

// disguises are the forms in which a secret, or the larger part of it, may lie
// about.
func disguises(secret string) []string {
	middle := secret[2 : len(secret)-2]
	return []string{
		middle, url.QueryEscape(middle), hex.EncodeToString([]byte(middle)), strings.ToUpper(hex.EncodeToString([]byte(middle))),
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
	}
}

// search fails for every secret that is at a place where it may not be. It proves
// that it finds something by the secrets that are where they may be.
func (c *canaries) search(may map[string]string) {
	c.t.Helper()
	found := map[string]bool{}
	for place, texts := range c.places {
		for name, secret := range c.secrets {
			for _, form := range disguises(secret) {
				for _, text := range texts {
					if i := strings.Index(text, form); i >= 0 {
						found[name+" at "+place] = true
						if may[name] != place {
							c.t.Errorf("%s is at %s: …%s…", name, place, strings.ReplaceAll(text[max(0, i-60):i], form, "*"))
						}
					}
				}
			}
		}
	}
	for name, place := range may {
		if !found[name+" at "+place] {
			c.t.Errorf("%s is not at %s, where it belongs: the search would find nothing", name, place)
		}
	}
	c.t.Logf("searched %d places, %d bytes, for %d secrets", len(c.places), c.bytes, len(c.secrets))
}

// recorder passes requests on to a vendor and keeps what came: the header that
// carries the vendor's credential apart from the rest.
func (c *canaries) recorder(name, credential string, vendor http.Handler) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := r.Header.Values(credential)
		whole := r.Clone(r.Context())
		whole.Header.Del(credential)
		text, err := httputil.DumpRequest(whole, true)
		if err != nil {
			c.t.Error(err)
		}
		r.Body = whole.Body
		c.see("the credential for "+name, strings.Join(own, "\n"))
		c.see("requests to "+name, string(text))
		vendor.ServeHTTP(w, r)
	}))
	c.t.Cleanup(server.Close)
	return server.URL
}

// call makes a call and keeps the answer when it is an error; else returns it.
func (c *canaries) call(method, url, key, body string) string {
	c.t.Helper()
	resp := call(c.t, method, url, key, body)
	var text strings.Builder
	if err := resp.Header.Write(&text); err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer func() { c.see("errors", text.String()) }()
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	text.Write(content)
	return string(content)
}

// TestNoSecretIsLeftAnywhere runs the main job, manages keys by every kind of
// route, sends every secret to where it does not belong, and then searches logs,
// metrics, error answers, what vendors and webhooks were sent, journals and every
// table of the database.
func TestNoSecretIsLeftAnywhere(t *testing.T) {
	t.Parallel()
	journal := t.TempDir() // goes after the suite
	s := newSuite(t)
	c := &canaries{t: t, places: map[string][]string{}, secrets: map[string]string{
		"a master key": masterKey, "an older master key": "sk-older-master-canary-98765",
		"a service token": serviceToken, "an older service token": "service-older-canary-98765",
		"the gateway's token": gatewayToken, "finance's token": financeToken,
		"the real key": realKey, "Autumn's key": autumnKey,
		"a webhook's secret": "whsec_" + base64.StdEncoding.EncodeToString([]byte("canary-of-a-webhook-0123456789")),
		"an unknown key":     virtualkey.New().Reveal(),
	}}
	for name, database := range s.roles {
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		c.secrets[name+"'s password"], _ = u.User.Password()
	}
	for name, value := range map[string]string{
		"LLM_PROXY_MASTER_KEY":    masterKey + "," + c.secrets["an older master key"],
		"LLM_PROXY_SERVICE_TOKEN": serviceToken + "," + c.secrets["an older service token"],
		"LLM_PROXY_ADMIN_TOKENS":  "gateway:issue:" + gatewayToken + ",finance:read:" + financeToken,
		"AUTUMN_WEBHOOK_SECRET":   c.secrets["a webhook's secret"], "LLM_PROXY_AUTH_FAILURES": "0",
		"ANTHROPIC_API_BASE": c.recorder("Anthropic", "X-Api-Key", s.anthropic),
		"AUTUMN_API_URL":     c.recorder("Autumn", "Authorization", s.autumn),
		"ALERT_WEBHOOK_URL":  c.recorder("the alerts", "Authorization", http.NotFoundHandler()), "PROXYSVC_JOURNAL_DIR": journal,
	} {
		s.env[name] = value
	}
	keysvc, proxysvc, billingsvc, outboxsvc := s.start("keysvc"), s.start("proxysvc"), s.start("billingsvc"), s.start("outboxsvc")
	c.manage(s, keysvc, "http://"+proxysvc.http)
	var used int64
	for _, e := range s.anthropic.Ledger() {
		used += byHand(t, e)
	}
	settle(t, billingv1.NewBillingServiceClient(billingsvc.dial(t)), outboxv1.NewOutboxServiceClient(outboxsvc.dial(t)), used)
	c.misplace(s)
	for _, p := range s.processes {
		c.see("metrics", c.call(http.MethodGet, "http://"+p.http+"/metrics", masterKey, ""))
		c.see("logs", p.log.String())
	}
	c.dump(s.database)
	err := filepath.WalkDir(journal, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		c.see("journals", path+string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.search(map[string]string{"the real key": "the credential for Anthropic", "Autumn's key": "the credential for Autumn"})
	for _, place := range []string{"logs", "metrics", "errors", "tables", "journals", "requests to Anthropic", "requests to Autumn", "requests to the alerts"} {
		if len(c.places[place]) == 0 {
			t.Errorf("nothing was seen of %s", place)
		}
	}
}

// manage makes keys by every kind of route, uses them and ends them.
func (c *canaries) manage(s *suite, keysvc *process, base string) {
	t := c.t
	t.Helper()
	ctx := t.Context()
	keys := keysv1.NewKeyServiceClient(keysvc.dial(t))
	issued, err := keys.IssueSessionKey(ctx, &keysv1.IssueSessionKeyRequest{
		UserId: "s-1", TeamId: "acme", Duration: "1h", Limits: &keysv1.Limits{SoftBudgetNanoUsd: proto.Int64(1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.secrets["a session's key"] = issued.GetSecret()
	client := sdk.NewClient(option.WithAPIKey(issued.GetSecret()), option.WithBaseURL(base))
	converse(t, client, "claude-haiku-4-5", 1)
	rotated, err := keys.RotateKey(ctx, &keysv1.RotateKeyRequest{KeyId: issued.GetKey().GetKeyId(), GracePeriod: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	c.secrets["its rotated key"] = rotated.GetSecret()
	generate := func(name, body string) string {
		plain, _ := answer(t, call(t, http.MethodPost, base+"/key/generate", gatewayToken, body))["key"].(string)
		if len(plain) != len(issued.GetSecret()) {
			t.Fatalf("no key of %s", name)
		}
		c.secrets[name] = plain
		return plain
	}
	short := generate("a key that expires", `{"team_id":"acme","duration":"1s"}`)
	deleted := generate("a deleted key", `{"team_id":"acme","key_alias":"gone"}`)
	again := generate("a regenerated key", `{"team_id":"acme"}`)
	plain, _ := answer(t, call(t, http.MethodPost, base+"/key/"+again+"/regenerate", masterKey, `{}`))["key"].(string)
	c.secrets["what it was regenerated to"] = plain
	c.call(http.MethodPost, base+"/v1/messages", plain, `{"model":"claude-haiku-4-5","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}`)
	c.call(http.MethodGet, base+"/key/info?key="+deleted, masterKey, "")
	c.call(http.MethodPost, base+"/key/block", masterKey, `{"key":"`+again+`"}`)
	c.call(http.MethodPost, base+"/key/update", masterKey, `{"key":"`+plain+`","max_budget":-1}`)
	c.call(http.MethodPost, base+"/key/delete", masterKey, `{"keys":["`+deleted+`"]}`)
	poll(t, func() bool {
		return post(t, strings.TrimPrefix(base, "http://"), short, `{"model":"claude-haiku-4-5"}`).StatusCode == http.StatusUnauthorized
	})
	poll(t, func() bool { return len(s.anthropic.Ledger()) > 0 })
}

// misplace sends every secret to where it does not belong: as the credential of
// every kind of route, in paths, queries and bodies of calls that fail.
func (c *canaries) misplace(s *suite) {
	c.t.Helper()
	for _, secret := range c.secrets {
		for _, p := range s.processes {
			for _, path := range []string{"/v1/messages", "/v1/keys", "/v1/spend", "/v1/billing/events", "/v1/outbox/stats", "/key/info", "/metrics", "/nothing"} {
				c.call(http.MethodGet, "http://"+p.http+path, secret, "")
				c.call(http.MethodPost, "http://"+p.http+path, secret, `{"model":"m"}`)
			}
			escaped := url.PathEscape(secret)
			for path, body := range map[string]string{
				"/v1/keys/" + escaped + "/rotate":       `{}`,
				"/v1/keys/" + escaped + ":block":        `{}`,
				"/key/" + escaped + "/regenerate":       `{"duration":"never"}`,
				"/key/block":                            `{"key":"` + secret + `x"}`,
				"/key/delete":                           `{"keys":["` + secret + `x"]}`,
				"/key/update":                           `{"key":"` + secret + `","max_budget":"much"}`,
				"/v1/keys":                              `{"limits":"` + secret + `"}`,
				"/v1/keys:revoke":                       `{"key_ids":["` + secret + `"]}`,
				"/v1/messages":                          `{"model":"claude-haiku-4-5","api_key":"` + secret + `"`,
				"/v1/chat/completions?key=" + escaped:   `{"model":7,"api_key":"` + secret + `"}`,
				"/v1/sessions/s-9/key?token=" + escaped: `{"duration":"` + secret + `"}`,
				"/v1/webhooks/autumn":                   `{"type":"` + secret + `"}`,
			} {
				c.call(http.MethodPost, "http://"+p.http+path, masterKey, body)
			}
			c.call(http.MethodGet, "http://"+p.http+"/v1/keys/"+escaped, masterKey, "")
			c.call(http.MethodGet, "http://"+p.http+"/key/info?key="+escaped+"x", masterKey, "")
			c.call(http.MethodGet, "http://"+p.http+"/v1/models/"+escaped, secret, "")
		}
	}
}

// dump keeps every row of every table of every schema, and what Postgres runs.
func (c *canaries) dump(database string) {
	t := c.t
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	tables := lines(t, conn, `
		select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\_t%'`)
	filled := 0
	for _, table := range tables {
		rows := lines(t, conn, `select r::text from `+table+` r`)
		for _, row := range rows {
			c.see("tables", table+": "+row) // bytea in hex
		}
		filled += min(1, len(rows))
	}
	for _, query := range lines(t, conn, `select query from pg_stat_activity where datname = current_database()`) {
		c.see("what Postgres runs", query)
	}
	if filled < 10 {
		t.Errorf("only %d of %d tables have rows: the search would prove little", filled, len(tables))
	}
	t.Logf("%d tables, %d of them with rows", len(tables), filled)
}

func lines(t *testing.T, conn *pgx.Conn, query string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", query, err))
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", query, err))
	}
	return out
}
