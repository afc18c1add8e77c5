package dev

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// answer reads a JSON answer.
func answer(t *testing.T, resp *http.Response) map[string]any {
	t.Helper()
	var out map[string]any
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("%d %s: %v", resp.StatusCode, text, err)
	}
	return out
}

// TestTheGatewaysLiteLLMClientWorksUnchanged does what the gateway does today:
// look for the team, make it, make a key, use it, look at its spend, delete it by
// its alias.
func TestTheGatewaysLiteLLMClientWorksUnchanged(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	base := "http://" + s.start("proxysvc").http
	if resp := call(t, http.MethodGet, base+"/team/info?team_id=org-1", masterKey, ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown team: %d, want 404", resp.StatusCode)
	}
	if resp := call(t, http.MethodPost, base+"/team/new", masterKey, `{"team_id":"org-1","team_alias":"Acme","some_new_field":1}`); resp.StatusCode != http.StatusOK {
		t.Fatalf("/team/new: %d %v", resp.StatusCode, answer(t, resp))
	}
	resp := call(t, http.MethodPost, base+"/key/generate", masterKey,
		`{"key_alias":"sess-1","user_id":"sess-1","team_id":"org-1","duration":"24h","max_budget":0.5,"metadata":{"a":1}}`)
	key := answer(t, resp)
	if resp.StatusCode != http.StatusOK || key["max_budget"] != 0.5 || key["key_alias"] != "sess-1" || key["tpm_limit"] != nil || key["expires"] == nil {
		t.Fatalf("/key/generate: %d %v", resp.StatusCode, key)
	}
	plain, ok := key["key"].(string)
	if !ok || !strings.HasPrefix(plain, "sk-") {
		t.Fatalf("no key in %v", key)
	}
	if again := call(t, http.MethodPost, base+"/key/generate", masterKey, `{"key_alias":"sess-1"}`); again.StatusCode != http.StatusBadRequest {
		t.Errorf("an alias that is taken: %d, want 400", again.StatusCode)
	}
	message := call(t, http.MethodPost, base+"/v1/messages", plain, `{"model":"claude-haiku-4-5","max_tokens":50,"messages":[{"role":"user","content":"Hi"}]}`)
	if message.StatusCode != http.StatusOK {
		t.Fatalf("a message: %d %v", message.StatusCode, answer(t, message))
	}
	cost := message.Header.Get("X-Litellm-Response-Cost")
	answer(t, message)
	info := answer(t, call(t, http.MethodGet, base+"/key/info?key="+plain, masterKey, ""))
	row, ok := info["info"].(map[string]any)
	if !ok || row["spend"] == 0.0 || json.Number(cost).String() == "" || row["team_id"] != "org-1" {
		t.Errorf("/key/info: %v", info)
	}
	team := answer(t, call(t, http.MethodGet, base+"/team/info?team_id=org-1", masterKey, ""))
	if keys, ok := team["keys"].([]any); !ok || len(keys) != 1 {
		t.Errorf("/team/info: %v", team)
	}
	deleted := answer(t, call(t, http.MethodPost, base+"/key/delete", masterKey, `{"key_aliases":["sess-1"]}`))
	if names, ok := deleted["deleted_keys"].([]any); !ok || len(names) != 1 || names[0] != "sess-1" {
		t.Errorf("/key/delete: %v", deleted)
	}
	poll(t, func() bool {
		return call(t, http.MethodPost, base+"/v1/messages", plain, `{"model":"claude-haiku-4-5","max_tokens":50,"messages":[]}`).StatusCode == http.StatusUnauthorized
	})
	if gone := call(t, http.MethodGet, base+"/key/info?key="+plain, masterKey, ""); gone.StatusCode != http.StatusNotFound {
		t.Errorf("/key/info of a deleted key: %d, want 404", gone.StatusCode)
	}
}

// TestErrorsHaveTheShapeOfTheirRoute calls what is wrong on every kind of route:
// Anthropic's errors on Anthropic's routes and on unknown ones, LiteLLM's on
// LiteLLM's, and nothing is written.
func TestErrorsHaveTheShapeOfTheirRoute(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	proxysvc := s.start("proxysvc")
	tests := []struct {
		name, method, path, key, body string
		status                        int
		want                          string
	}{
		{"a message without a key", "POST", "/v1/messages", "", `{"model":"claude-haiku-4-5"}`, 401, `"authentication_error"`},
		{"a message with the master key", "POST", "/v1/messages", masterKey, `{"model":"claude-haiku-4-5"}`, 401, `"authentication_error"`},
		{"a message by GET", "GET", "/v1/messages", "", "", 405, `"invalid_request_error"`},
		{"an unknown path", "GET", "/v1/nothing", "", "", 404, `"not_found_error"`},
		{"an unknown path without a version", "POST", "/nothing", masterKey, "{}", 404, `"not_found_error"`},
		{"the doubled prefix", "POST", "/v1/v1/messages", "", `{}`, 401, `"authentication_error"`},
		{"a LiteLLM route without a key", "POST", "/key/generate", "", `{}`, 401, `"auth_error"`},
		{"a LiteLLM route with a virtual key's form", "POST", "/key/generate", "sk-not-the-master-key-at-all", `{}`, 401, `"code":"401"`},
		{"a LiteLLM route with broken JSON", "POST", "/key/generate", masterKey, `{"a":`, 400, `"invalid_request_error"`},
		{"a negative budget", "POST", "/key/generate", masterKey, `{"max_budget":-1}`, 400, `max_budget cannot be negative`},
		{"a LiteLLM route that is none", "POST", "/key/nothing", masterKey, `{}`, 404, `{"detail":"Not Found"}`},
		{"a LiteLLM route by another method", "GET", "/key/generate", masterKey, "", 405, `{"detail":"Method Not Allowed"}`},
		{"our own route without a key", "GET", "/v1/spend", "", "", 401, `"message"`},
		{"our own route with a misspelt field", "POST", "/v1/keys", masterKey, `{"key_allias":"a"}`, 400, `key_allias`},
		{"keysvc's route without a key", "GET", "/v1/keys", "", "", 401, `"message"`},
		{"keysvc's route", "GET", "/v1/keys", masterKey, "", 200, `"keys"`},
		{"metrics without a key", "GET", "/metrics", "", "", 401, `master key`},
		{"metrics", "GET", "/metrics", masterKey, "", 200, `proxysvc_open_requests`},
		{"the OpenAPI document", "GET", "/openapi.json", "", "", 200, `"/v1/messages"`},
		{"the document names fields as the answers do", "GET", "/openapi.json", "", "", 200, `"next_page_token"`},
		{"LiteLLM's liveliness", "GET", "/health/liveliness", "", "", 200, `I'm alive!`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := call(t, tt.method, "http://"+proxysvc.http+tt.path, tt.key, tt.body)
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || !strings.Contains(compact(string(text)), compact(tt.want)) {
				t.Errorf("%d %s, want %d with %s", resp.StatusCode, text, tt.status, tt.want)
			}
		})
	}
	audit, err := proxyv1.NewSpendServiceClient(proxysvc.dial(t)).AuditSpend(t.Context(), &proxyv1.AuditSpendRequest{})
	if err != nil || audit.GetRows() != 0 || audit.GetOpenRequests() != 0 {
		t.Errorf("after all that was wrong: %v, %v, want nothing written", audit, err)
	}
}

// compact takes the spaces out that protojson puts in at random.
func compact(s string) string { return strings.ReplaceAll(s, ": ", ":") }

// TestAGRPCCallerThatTakesNothingIsStopped revokes the key of a caller that does not read
// its answer, which is much longer than what gRPC buffers: the request is settled.
func TestAGRPCCallerThatTakesNothingIsStopped(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	proxysvc := s.start("proxysvc")
	plain, ok := answer(t, call(t, http.MethodPost, "http://"+proxysvc.http+"/key/generate", masterKey, `{"team_id":"acme"}`))["key"].(string)
	if !ok {
		t.Fatal("no key")
	}
	// A window of 64 KiB that does not grow.
	conn, err := grpc.NewClient(proxysvc.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+plain)
	stream, err := proxyv1.NewProxyServiceClient(conn).CreateMessage(ctx, &proxyv1.CreateMessageRequest{
		AnthropicVersion: "2023-06-01", Body: &httpbody.HttpBody{Data: []byte(
			`{"model":"claude-opus-5-5","max_tokens":128000,"stream":true,"messages":[{"role":"user","content":"[[sim:huge=3000000;output_tokens=20]]"}]}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // and no more
		t.Fatal(err)
	}
	admin := proxyv1.NewProxyServiceClient(proxysvc.dial(t))
	open := func() int {
		resp, err := admin.ListOpenRequests(t.Context(), &proxyv1.ListOpenRequestsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(resp.GetOpenRequests())
	}
	poll(t, func() bool { // what is left is in the sockets: the proxy has to wait for its caller
		sent := s.anthropic.Ledger()
		return len(sent) == 1 && sent[0].Finished && open() == 1
	})
	answer(t, call(t, http.MethodPost, "http://"+proxysvc.http+"/key/delete", masterKey, `{"keys":["`+plain+`"]}`))
	poll(t, func() bool { return open() == 0 })
}

// TestGRPCCallersUseTheSamePipeline sends a message over gRPC.
func TestGRPCCallersUseTheSamePipeline(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	proxysvc := s.start("proxysvc")
	plain, ok := answer(t, call(t, http.MethodPost, "http://"+proxysvc.http+"/key/generate", masterKey, `{"team_id":"acme"}`))["key"].(string)
	if !ok {
		t.Fatal("no key")
	}
	conn, err := serve.Caller{Token: secret.New(plain)}.Dial(proxysvc.grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := proxyv1.NewProxyServiceClient(conn)
	send := func(body string) (string, metadata.MD, error) {
		stream, err := client.CreateMessage(t.Context(), &proxyv1.CreateMessageRequest{
			AnthropicVersion: "2023-06-01", Body: &httpbody.HttpBody{ContentType: "application/json", Data: []byte(body)},
		})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return text.String(), stream.Trailer(), nil
			}
			if err != nil {
				return text.String(), stream.Trailer(), err
			}
			text.Write(m.GetBody().GetData())
		}
	}
	text, trailer, err := send(`{"model":"claude-haiku-4-5","max_tokens":50,"stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	if err != nil || !strings.Contains(text, "message_stop") || trailer.Get("x-http-status")[0] != "200" {
		t.Errorf("%v %v: %s", err, trailer, text)
	}
	if _, _, err := send(`{"model":"no-such-model","max_tokens":1}`); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown model: %v, want NotFound", err)
	}
	counted, err := client.CountTokens(t.Context(), &proxyv1.CountTokensRequest{
		AnthropicVersion: "2023-06-01", Body: &httpbody.HttpBody{Data: []byte(`{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"Hi"}]}`)},
	})
	if err != nil || !strings.Contains(string(counted.GetBody().GetData()), `"input_tokens":`) {
		t.Errorf("counted %s, %v", counted.GetBody().GetData(), err)
	}
	models, err := client.ListModels(t.Context(), &proxyv1.ListModelsRequest{})
	if err != nil || len(models.GetModels()) == 0 {
		t.Errorf("models %v, %v", models, err)
	}
	if _, err := client.ListOpenRequests(t.Context(), &proxyv1.ListOpenRequestsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("an admin's method with a virtual key: %v, want Unauthenticated", err)
	}
	conn2 := proxysvc.dial(t)
	if _, err := proxyv1.NewProxyServiceClient(conn2).ListModels(t.Context(), &proxyv1.ListModelsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a virtual key's method with the master key: %v, want Unauthenticated", err)
	}
}

// TestAKeyOfSomeNetworksOverGRPC calls through a load balancer that is trusted, and
// through one that is not: only the first may say where a caller is.
func TestAKeyOfSomeNetworksOverGRPC(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	wary := s.start("proxysvc")
	s.env["PROXYSVC_TRUSTED_PROXIES"] = "127.0.0.0/8"
	trusting := s.start("proxysvc")
	issued, err := keysv1.NewKeyServiceClient(keysvc.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{
		UserId: "s-1", TeamId: "acme", Duration: "1h", AllowedCidrs: []string{"203.0.113.0/24"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		through *process
		from    string
		want    codes.Code
	}{
		{trusting, "203.0.113.7", codes.OK},
		{trusting, "198.51.100.1", codes.PermissionDenied},
		{trusting, "203.0.113.7, 198.51.100.1", codes.PermissionDenied}, // the first hop is only claimed
		{trusting, "", codes.PermissionDenied},
		{wary, "203.0.113.7", codes.PermissionDenied},
	} {
		conn, err := serve.Caller{Token: secret.New(issued.GetSecret())}.Dial(tt.through.grpc)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		if tt.from != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", tt.from)
		}
		_, err = proxyv1.NewProxyServiceClient(conn).CountTokens(ctx, &proxyv1.CountTokensRequest{
			AnthropicVersion: "2023-06-01", Body: &httpbody.HttpBody{Data: []byte(`{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"Hi"}]}`)},
		})
		if status.Code(err) != tt.want {
			t.Errorf("from %q: %v, want %s", tt.from, err, tt.want)
		}
		conn.Close()
	}
}

// runToItsEnd runs a service that is not expected to come up.
func runToItsEnd(t *testing.T, name string, env ...string) (code int, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary(t, name))
	cmd.Env = append([]string{}, env...)
	var out lockedBuffer
	cmd.Stderr = &out
	cmd.Run() //nolint:errcheck // the exit code is the result
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestWrongConfigurationIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	for name, variables := range map[string][]string{
		"keysvc":     {"LLM_PROXY_MASTER_KEY", "LLM_PROXY_SERVICE_TOKEN", "DATABASE_URL", "KEYSVC_HEARTBEAT"},
		"proxysvc":   {"LLM_PROXY_MASTER_KEY", "LLM_PROXY_SERVICE_TOKEN", "DATABASE_URL", "KEYSVC_TARGET", "ANTHROPIC_API_KEY"},
		"billingsvc": {"LLM_PROXY_MASTER_KEY", "LLM_PROXY_SERVICE_TOKEN", "DATABASE_URL", "PROXYSVC_TARGET", "LLM_MARKUP"},
		"outboxsvc":  {"LLM_PROXY_MASTER_KEY", "LLM_PROXY_SERVICE_TOKEN", "BILLINGSVC_TARGET", "OUTBOX_INTERVAL"},
	} {
		code, stderr := runToItsEnd(t, name, "KEYSVC_HEARTBEAT=soon", "LLM_MARKUP=many", "OUTBOX_INTERVAL=-1s")
		if code != 2 {
			t.Errorf("%s exits with %d, want 2", name, code)
		}
		for _, v := range variables {
			if !strings.Contains(stderr, v) {
				t.Errorf("%s does not name %s:\n%s", name, v, stderr)
			}
		}
	}
}

// TestWhatStandsInTheWayIsNamed starts services where they cannot run.
func TestWhatStandsInTheWayIsNamed(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	keysvc := s.start("keysvc")
	env := []string{
		"DATABASE_URL=" + s.roles["keysvc"], "LLM_PROXY_MASTER_KEY=" + masterKey, "LLM_PROXY_SERVICE_TOKEN=" + serviceToken,
		"KEYSVC_GRPC_LISTEN=127.0.0.1:0",
	}
	code, stderr := runToItsEnd(t, "keysvc", append(env, "KEYSVC_HTTP_LISTEN="+keysvc.http)...)
	if code != 1 || !strings.Contains(stderr, keysvc.http) || !strings.Contains(stderr, "keysvc wants") {
		t.Errorf("a port in use: exit %d, %s", code, stderr)
	}
	conn, err := pgx.Connect(t.Context(), s.roles["keysvc"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `insert into keys.migrations (name, checksum) values ('9999_future.sql', 'x')`); err != nil {
		t.Fatal(err)
	}
	env = append(env, "KEYSVC_HTTP_LISTEN=127.0.0.1:0")
	if code, stderr = runToItsEnd(t, "keysvc", env...); code != 1 || !strings.Contains(stderr, "newer") || !strings.Contains(stderr, "9999_future") {
		t.Errorf("a newer schema: exit %d, %s", code, stderr)
	}
	if _, err := conn.Exec(t.Context(), `drop table keys.migrations`); err != nil {
		t.Fatal(err)
	}
	if code, stderr = runToItsEnd(t, "keysvc", env...); code != 1 || !strings.Contains(stderr, "someone else") {
		t.Errorf("a schema that is not ours: exit %d, %s", code, stderr)
	}
}

// TestRolesCannotReadEachOther proves that the services' schemas are apart.
func TestRolesCannotReadEachOther(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	s.start("proxysvc")
	conn, err := pgx.Connect(t.Context(), s.roles["keysvc"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `select from spend.spend_logs`); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("keysvc's role reads the ledger: %v", err)
	}
}

// TestTheAdminRoutesCanBeSwitchedOff leaves sandboxes what they need and nothing
// else.
func TestTheAdminRoutesCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.env["PROXYSVC_ADMIN_ROUTES"] = "off"
	s.start("keysvc")
	base := "http://" + s.start("proxysvc").http
	for _, route := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/v1/messages", http.StatusUnauthorized},
		{"POST", "/v1/messages/count_tokens", http.StatusUnauthorized},
		{"GET", "/v1/models", http.StatusUnauthorized},
		{"GET", "/health/liveliness", http.StatusOK},
		{"GET", "/v1/spend", http.StatusNotFound},
		{"GET", "/v1/keys", http.StatusNotFound},
		{"GET", "/v1/open_requests", http.StatusNotFound},
		{"POST", "/key/generate", http.StatusNotFound},
		{"GET", "/team/info", http.StatusNotFound},
	} {
		if resp := call(t, route.method, base+route.path, masterKey, ""); resp.StatusCode != route.want {
			t.Errorf("%s %s: %d, want %d", route.method, route.path, resp.StatusCode, route.want)
		}
	}
}
