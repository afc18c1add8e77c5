package config

import (
	"strings"
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestTheDefaultServesEveryNameInUseAndAllArePriced(t *testing.T) {
	t.Parallel()
	ds, err := Load(Default, environment(map[string]string{"ANTHROPIC_API_KEY": "sk-ant-real"}))
	if err != nil {
		t.Fatal(err)
	}
	book, err := pricing.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		if _, err := book.Model(d.Model); err != nil {
			t.Errorf("%s: %v", d.ModelName, err)
		}
	}
	r := proxy.NewRouter(ds)
	for sent, want := range map[string]string{
		"claude-sonnet-4-5":           "claude-sonnet-4-5",
		"anthropic/claude-sonnet-4-5": "claude-sonnet-4-5",
		"claude-haiku-4-5-20251001":   "claude-haiku-4-5-20251001",
		"claude-opus-5-5":             "claude-opus-5-5",
	} {
		if d, ok := r.Route(sent, "s"); !ok || d.Model != want || d.APIBase != AnthropicBase {
			t.Errorf("Route(%s) = %q at %q, %v, want %s", sent, d.Model, d.APIBase, ok, want)
		}
	}
	if _, ok := r.Route("gpt-5", "s"); ok {
		t.Error("an unknown model has a route")
	}
}

func TestFaultsAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := Load([]byte(`model_list:
  - model_name: a
    litellm_params: {model: openai/gpt-5, api_key: os.environ/MISSING}
  - litellm_params: {model: anthropic/b, api_base: "ftp://x"}
`), environment(nil))
	if err == nil {
		t.Fatal("Load took a bad file")
	}
	for _, want := range []string{"anthropic/MODEL", "MISSING", "model_name is missing", `"ftp://x"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s: %v", want, err)
		}
	}
	if _, err := Load([]byte("model_list:\n  - [\n"), environment(nil)); err == nil || !strings.Contains(err.Error(), "line") {
		t.Errorf("broken YAML: %v, want a line number", err)
	}
}

func TestWildcardsAndSeveralDeployments(t *testing.T) {
	t.Parallel()
	ds, err := Load([]byte(`model_list:
  - {model_name: "claude-*", litellm_params: {model: "anthropic/claude-*", api_key: k, api_base: "http://one/v1/"}}
  - {model_name: fast, litellm_params: {model: anthropic/claude-haiku-4-5, api_key: k1}, model_info: {id: d1}}
  - {model_name: fast, litellm_params: {model: anthropic/claude-haiku-4-5, api_key: k2}, model_info: {id: d2}}
`), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	r := proxy.NewRouter(ds)
	if d, ok := r.Route("anthropic/claude-sonnet-5", "s"); !ok || d.Model != "claude-sonnet-5" || d.APIBase != "http://one" {
		t.Errorf("wildcard: %+v, %v", d, ok)
	}
	used := map[string]bool{}
	for _, session := range strings.Split("abcdefghijklmnop", "") {
		d, _ := r.Route("fast", session)
		again, _ := r.Route("fast", session)
		if d.ID != again.ID {
			t.Errorf("session %s moved from %s to %s", session, d.ID, again.ID)
		}
		used[d.ID] = true
	}
	if len(used) != 2 {
		t.Errorf("used %v, want both deployments", used)
	}
}
