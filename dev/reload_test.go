package dev

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// TestConfigurationAndRealKeysReloadUnderAStream changes the real key, which
// comes from a mounted directory, and config.yaml while a stream runs: the stream
// ends whole, the next request uses what is new, and a bad file is refused while
// the old one goes on.
func TestConfigurationAndRealKeysReloadUnderAStream(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	upstream := anthropic.New(anthropic.Options{APIKeys: []string{realKey + "-old1", realKey + "-new2"}})
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config.yaml")
	put("REAL_KEY", realKey+"-old1\n")
	put("config.yaml", deploymentOf("claude-haiku-4-5"))
	s.env["ANTHROPIC_API_BASE"], s.env["LLM_PROXY_CONFIG"], s.env["LLM_PROXY_SECRETS_DIR"] = server.URL, config, dir
	s.env["PROXYSVC_RELOAD_INTERVAL"] = "50ms"
	s.start("keysvc")
	p := s.start("proxysvc")
	base := "http://" + p.http
	secret, _ := answer(t, call(t, http.MethodPost, base+"/key/generate", masterKey, `{"user_id":"s"}`))["key"].(string)

	stream := call(t, http.MethodPost, base+"/v1/messages", secret,
		`{"model":"claude-haiku-4-5","max_tokens":50,"stream":true,"messages":[{"role":"user","content":"[[sim:stall_pings=after:1]]"}]}`)
	lines := bufio.NewReader(stream.Body)
	awaitLine(t, lines, "content_block_delta")

	put("REAL_KEY", realKey+"-new2\n")
	put("config.yaml", deploymentOf("claude-haiku-4-5")+deploymentOf("claude-opus-5-5")[len("model_list:\n"):]+"unheard_of: 1\n")
	ask := func(model string) (int, string) {
		resp := call(t, http.MethodPost, base+"/v1/messages", secret,
			`{"model":"`+model+`","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}`)
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	poll(t, func() bool { status, _ := ask("claude-opus-5-5"); return status == http.StatusOK })
	if requests := upstream.Requests(); requests[len(requests)-1].Key != "new2" {
		t.Errorf("the last request came with the key that ends in %q", requests[len(requests)-1].Key)
	}

	put("config.yaml", "model_list:\n  - {model_name: x, litellm_params: {model: anthropic/x, rpm: many}}\n")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	poll(t, func() bool { return strings.Contains(p.log.String(), "what was loaded before stays in force") })
	if status, text := ask("claude-opus-5-5"); status != http.StatusOK {
		t.Errorf("after a bad file: %d %s", status, text)
	}
	for _, want := range []string{"config.yaml:2:", "unheard_of"} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
	metrics := call(t, http.MethodGet, base+"/metrics", masterKey, "")
	text, err := io.ReadAll(metrics.Body)
	if err != nil || !strings.Contains(string(text), `proxysvc_config_reloads_total{result="refused"}`) {
		t.Errorf("no metric of the refusal, %v", err)
	}
	// The first stream still runs, on the old key; its pings still come.
	awaitLine(t, lines, "ping")
}

func deploymentOf(model string) string {
	return fmt.Sprintf("model_list:\n  - model_name: %[1]s\n    litellm_params: {model: anthropic/%[1]s, api_key: os.environ/REAL_KEY}\n", model)
}

func awaitLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("no %s: %v", want, err)
		}
		if strings.Contains(line, want) {
			return
		}
	}
}

// TestHarmlessQuestions asks what clients ask without a key: Claude Code's HEAD
// /api/hello, a browser's GET /, and paths that do not exist. The answers are
// those of Anthropic: a 404 in its shape, and no failed login.
func TestHarmlessQuestions(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	s.start("keysvc")
	base := "http://" + s.start("proxysvc").http
	for _, route := range [][2]string{
		{http.MethodHead, "/api/hello"},
		{http.MethodHead, "/"},
		{http.MethodGet, "/"},
		{http.MethodPost, "/"},
		{http.MethodGet, "/v1/files"},
		{http.MethodPost, "/v1/complete"},
		{http.MethodPost, "/api/event_logging/batch"},
		{http.MethodGet, "/v1/models/claude-nobody"},
	} {
		resp := call(t, route[0], base+route[1], "", "")
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := http.StatusNotFound
		if strings.HasPrefix(route[1], "/v1/models/") {
			want = http.StatusUnauthorized
		}
		if resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s %s: %d %v", route[0], route[1], resp.StatusCode, resp.Header)
		}
		if route[0] != http.MethodHead && !strings.Contains(string(text), `"type":"error"`) {
			t.Errorf("%s %s: %s", route[0], route[1], text)
		}
	}
}
