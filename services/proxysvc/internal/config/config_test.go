package config

import (
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestTheDefaultServesEveryNameInUseAndAllArePriced(t *testing.T) {
	t.Parallel()
	book, err := pricing.Default()
	if err != nil {
		t.Fatal(err)
	}
	secrets := Secrets{Getenv: environment(map[string]string{"ANTHROPIC_API_KEY": "sk-ant-real"})}
	cfg, err := Read(Default, secrets.Get, book)
	if err != nil || len(cfg.Warnings) > 0 {
		t.Fatalf("%v, warnings %q", err, cfg.Warnings)
	}
	for _, d := range cfg.Routing.Deployments {
		if _, err := book.Model(d.Model); err != nil {
			t.Errorf("%s: %v", d.ModelName, err)
		}
		if d.APIBase != AnthropicBase || d.APIKey.Reveal() != "sk-ant-real" {
			t.Errorf("%s goes to %s", d.ModelName, d.APIBase)
		}
	}
}
