package llmproxy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func env(pairs ...string) func(string) string {
	values := map[string]string{}
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

// connect makes a client from an environment.
func connect(pairs ...string) (*Client, error) {
	cfg, err := ConfigFromEnv(env(pairs...))
	if err != nil {
		return nil, err
	}
	return New(cfg)
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, env, url, base string }{
		{"no proxy", "X=", "", ""},
		{"a plain URL", "LLM_PROXY_URL=http://proxy:4000", "http://proxy:4000", "http://proxy:4000/v1"},
		{"a slash at the end", "LLM_PROXY_URL=http://proxy:4000/", "http://proxy:4000", "http://proxy:4000/v1"},
		{"with /v1", "LLM_PROXY_URL=https://proxy/v1", "https://proxy", "https://proxy/v1"},
		{"with /v1 twice, and slashes", "LLM_PROXY_URL=https://proxy/v1//v1/", "https://proxy", "https://proxy/v1"},
		{"below a path", "LLM_PROXY_URL=https://host/llm/v1", "https://host/llm", "https://host/llm/v1"},
		{"a path that only ends alike", "LLM_PROXY_URL=https://host/xv1", "https://host/xv1", "https://host/xv1/v1"},
		{"spaces around it", "LLM_PROXY_URL= https://proxy ", "https://proxy", "https://proxy/v1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := connect(tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if c.URL() != tt.url || c.BaseURL() != tt.base || c.Enabled() != (tt.url != "") {
				t.Errorf("%q, %q, %v, want %q, %q", c.URL(), c.BaseURL(), c.Enabled(), tt.url, tt.base)
			}
		})
	}
}

func TestSandboxesGetThePublicURLAndAdministratorsTheirs(t *testing.T) {
	t.Parallel()
	c, err := connect("LLM_PROXY_URL=http://in:4000", "LLM_PROXY_PUBLIC_URL=https://out/v1", "LLM_PROXY_ADMIN_URL=http://admin/v1/")
	if err != nil {
		t.Fatal(err)
	}
	if c.URL() != "https://out" || c.BaseURL() != "https://out/v1" || c.admin != "http://admin" {
		t.Errorf("%q, %q, %q", c.URL(), c.BaseURL(), c.admin)
	}
}

func TestWrongSettingsAreNamedAndNotShown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  []string
		want string
	}{
		{"required without a URL", []string{"LLM_PROXY_REQUIRED=true"}, "LLM_PROXY_REQUIRED is true, but LLM_PROXY_URL is not set"},
		{"required in capitals", []string{"LLM_PROXY_REQUIRED=TRUE"}, "LLM_PROXY_REQUIRED is true, but LLM_PROXY_URL is not set"},
		{"required neither way", []string{"LLM_PROXY_REQUIRED=secret"}, "LLM_PROXY_REQUIRED is neither true nor false"},
		{"no URL", []string{"LLM_PROXY_URL=secret"}, "LLM_PROXY_URL is not an http or https URL"},
		{"another scheme", []string{"LLM_PROXY_URL=ftp://secret"}, "LLM_PROXY_URL is not an http or https URL"},
		{"a password", []string{"LLM_PROXY_URL=http://me:secret@proxy"}, "LLM_PROXY_URL holds a user name or password; use LLM_PROXY_MASTER_KEY"},
		{"a query", []string{"LLM_PROXY_URL=http://proxy?secret"}, "LLM_PROXY_URL has a query or a fragment"},
		{"a wrong public URL", []string{"LLM_PROXY_URL=http://proxy", "LLM_PROXY_PUBLIC_URL=secret"}, "LLM_PROXY_PUBLIC_URL is not an http or https URL"},
		{"only an admin URL", []string{"LLM_PROXY_ADMIN_URL=http://secret"}, "LLM_PROXY_ADMIN_URL or LLM_PROXY_PUBLIC_URL is set, but LLM_PROXY_URL is not"},
		{"a key of two lines", []string{"LLM_PROXY_MASTER_KEY=secret\nsecret"}, "LLM_PROXY_MASTER_KEY has characters that no header can carry"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := connect(tt.env...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestDirectMode(t *testing.T) {
	t.Parallel()
	c, err := connect("LLM_PROXY_REQUIRED=false", "ANTHROPIC_API_KEY=real")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	key, err := c.GenerateSessionAPIKey(ctx, SessionRequest{SessionID: "s", OrgID: "acme"})
	if err != nil || key.Key != "real" || key.Proxied || len(key.Env) != 1 || key.Env["ANTHROPIC_API_KEY"] != "real" || key.ExpiresAt != nil {
		t.Errorf("%v, %v", key, err)
	}
	if _, _, err := c.EnsureTeamExists(ctx, "acme", TeamOptions{}); err != nil {
		t.Error(err)
	}
	if keys, err := c.RevokeVirtualKey(ctx, Target{SessionID: "s"}); err != nil || len(keys) != 0 {
		t.Errorf("%v, %v", keys, err)
	}
	if _, err := c.EndSession(ctx, "s"); !errors.Is(err, ErrDisabled) {
		t.Error(err)
	}
	if _, err := c.ListSpendLogs(ctx, SpendFilter{}); !errors.Is(err, ErrDisabled) {
		t.Error(err)
	}
	poor, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = poor.GenerateSessionAPIKey(ctx, SessionRequest{SessionID: "s", OrgID: "acme"})
	if !errors.Is(err, ErrDisabled) || !strings.Contains(err.Error(), "ANTHROPIC_API_KEY") {
		t.Error(err)
	}
}

func TestOpencodeConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, env, model, want string }{
		{"with a proxy", "LLM_PROXY_URL=http://proxy/v1", "", `map[$schema:https://opencode.ai/config.json provider:map[anthropic:map[options:map[apiKey:sk-1 baseURL:http://proxy/v1]]]]`},
		{"direct, where OpenCode finds the key itself", "ANTHROPIC_API_KEY=real", "", `map[$schema:https://opencode.ai/config.json]`},
		{"with a model", "ANTHROPIC_API_KEY=real", "anthropic/x", `map[$schema:https://opencode.ai/config.json model:anthropic/x]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := connect(tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(c.OpencodeConfig("sk-1", tt.model)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestAConfigurationShowsNoSecret(t *testing.T) {
	t.Parallel()
	cfg := Config{URL: "http://proxy", MasterKey: "sk-master-0123456789", AnthropicAPIKey: "sk-ant-0123456789"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, cfg); strings.Contains(text, "0123456789") {
			t.Errorf("%s shows %s", verb, text)
		}
	}
}
