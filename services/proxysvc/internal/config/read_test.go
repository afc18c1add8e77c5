package config

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// canary is a secret that nothing may show.
const canary = "sk-ant-canary"

func book(t testing.TB) *pricing.Book {
	t.Helper()
	b, err := pricing.Default()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keys(name string) (string, error) {
	return map[string]string{"ANTHROPIC_API_KEY": canary, "OPENAI_API_KEY": canary, "K": canary, "NOT_A_URL": canary}[name], nil
}

// read reads a configuration that must be good and warn of nothing.
func read(t *testing.T, text string) proxy.Routing {
	t.Helper()
	cfg, err := Read([]byte(text), keys, book(t))
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings: %q", cfg.Warnings)
	}
	return cfg.Routing
}

// unsecret compares secrets by their text.
var unsecret = cmp.Comparer(func(a, b secret.String) bool { return a.Reveal() == b.Reveal() })

func TestEverythingThatIsHonoured(t *testing.T) {
	t.Parallel()
	retries := 4
	got := read(t, `
model_list:
  - model_name: fast
    litellm_params:
      model: anthropic/claude-haiku-4-5
      api_key: os.environ/K
      api_base: https://one.example/v1/
      weight: 9
      order: 2
      rpm: 60
      tpm: "100000"
      timeout: 600
      stream_timeout: 1.5
      max_retries: 4
      cooldown_time: 30s
    model_info: {id: d1, mode: chat, supports_vision: true}
  - model_name: fast
    litellm_params: {model: claude-haiku-4-5, api_key: literal, drop_params: true}
    model_info: {id: d2}
  - model_name: "gpt-*"
    litellm_params: {model: "openai/gpt-*"}
    model_info: {id: d3}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
  retry_after: 0.25
  timeout: 5m
  stream_timeout: 20
  allowed_fails: 7
  cooldown_time: 60
  fallbacks: [{"fast": ["gpt-5", swift]}]
  default_fallbacks: [fast]
  model_group_alias: {quick: swift, swift: fast, sly: {model: fast, hidden: false}}
`)
	want := proxy.Routing{
		Deployments: []proxy.Deployment{
			{
				ID: "d1", ModelName: "fast", Provider: proxy.Anthropic, Model: "claude-haiku-4-5", APIBase: "https://one.example",
				APIKey: secret.New(canary), Weight: 9, Order: 2, RPM: 60, TPM: 100_000, Timeout: 10 * time.Minute,
				StreamTimeout: 1500 * time.Millisecond, MaxRetries: &retries, Cooldown: 30 * time.Second,
			},
			{
				ID: "d2", ModelName: "fast", Provider: proxy.Anthropic, Model: "claude-haiku-4-5", APIBase: AnthropicBase,
				APIKey: secret.New("literal"), Weight: 1,
			},
			{
				ID: "d3", ModelName: "gpt-*", Provider: proxy.OpenAI, Model: "gpt-*", APIBase: OpenAIBase,
				APIKey: secret.New(canary), Weight: 1,
			},
		},
		Aliases:    map[string]string{"quick": "fast", "swift": "fast", "sly": "fast"},
		Fallbacks:  map[string][]string{"fast": {"gpt-5", "swift"}, "*": {"fast"}},
		NumRetries: 2, RetryAfter: 250 * time.Millisecond, Timeout: 5 * time.Minute, StreamTimeout: 20 * time.Second,
		AllowedFails: 7, Cooldown: time.Minute,
	}
	if diff := cmp.Diff(want, got, unsecret); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}
}

func TestDefaultsOfWhatIsNotSet(t *testing.T) {
	t.Parallel()
	got := read(t, "model_list: [{model_name: a, litellm_params: {model: claude-opus-5}}]\nrouter_settings:\nlitellm_settings: {}\n")
	d := got.Deployments[0]
	if d.Weight != 1 || d.MaxRetries != nil || d.Price != nil || d.APIKey.Reveal() != canary || len(d.ID) != 32 {
		t.Errorf("a deployment with nothing set: %+v", d)
	}
	if got.NumRetries != 0 || got.AllowedFails != 3 || got.Cooldown != 5*time.Second || got.Timeout != 0 {
		t.Errorf("a routing with nothing set: %+v", got)
	}
}

func TestLitellmSettingsCountWhereTheRouterSaysNothing(t *testing.T) {
	t.Parallel()
	const list = "model_list: [{model_name: a, litellm_params: {model: claude-opus-5}}, {model_name: b, litellm_params: {model: claude-opus-5}}]\n"
	const litellm = "litellm_settings: {num_retries: 3, request_timeout: 60, allowed_fails: 9, fallbacks: [{b: [a]}], default_fallbacks: [a], drop_params: true}\n"
	got := read(t, list+litellm)
	if got.NumRetries != 3 || got.Timeout != time.Minute || got.AllowedFails != 9 || cmp.Diff(got.Fallbacks, map[string][]string{"b": {"a"}, "*": {"a"}}) != "" {
		t.Errorf("without router_settings: %+v", got)
	}
	got = read(t, list+litellm+"router_settings: {num_retries: 0, timeout: 5, allowed_fails: 1, fallbacks: [{a: [b]}]}\n")
	if got.NumRetries != 0 || got.Timeout != 5*time.Second || got.AllowedFails != 1 || cmp.Diff(got.Fallbacks, map[string][]string{"a": {"b"}, "*": {"a"}}) != "" {
		t.Errorf("with router_settings: %+v", got)
	}
}

func TestBasesAndKeysOfAProvider(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		params string
		env    map[string]string
		base   string
		key    string
	}{
		"Anthropic's own":               {"model: anthropic/claude-opus-5", nil, AnthropicBase, canary},
		"OpenAI's own":                  {"model: openai/gpt-5", nil, OpenAIBase, canary},
		"the environment's for one":     {"model: anthropic/claude-opus-5", map[string]string{"ANTHROPIC_API_BASE": "http://sim:1/"}, "http://sim:1", canary},
		"is not the other's":            {"model: openai/gpt-5", map[string]string{"ANTHROPIC_API_BASE": "http://sim:1/"}, OpenAIBase, canary},
		"OPENAI_API_BASE":               {"model: openai/gpt-5", map[string]string{"OPENAI_API_BASE": "http://a/v1", "OPENAI_BASE_URL": "http://b"}, "http://a", canary},
		"OPENAI_BASE_URL":               {"model: openai/gpt-5", map[string]string{"OPENAI_BASE_URL": "http://b/v1/"}, "http://b", canary},
		"the entry's wins":              {"model: openai/gpt-5, api_base: http://c", map[string]string{"OPENAI_BASE_URL": "http://b"}, "http://c", canary},
		"the entry names a variable":    {"model: openai/gpt-5, api_base: os.environ/B, api_key: os.environ/OWN", map[string]string{"B": "http://d//", "OWN": "mine"}, "http://d", "mine"},
		"a whole path, as LiteLLM's":    {"model: anthropic/claude-opus-5, api_base: https://h/v1/messages", nil, "https://h", canary},
		"a gateway's path":              {"model: anthropic/claude-opus-5, api_base: https://h/anthropic/v1", nil, "https://h/anthropic", canary},
		"a bare name of OpenAI's list":  {"model: gpt-5", nil, OpenAIBase, canary},
		"a bare name that nobody knows": {"model: secret-model, " + priced, nil, AnthropicBase, canary},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Read([]byte("model_list: [{model_name: a, litellm_params: {"+tt.params+"}}]"), func(name string) (string, error) {
				if v := tt.env[name]; v != "" {
					return v, nil
				}
				return keys(name)
			}, book(t))
			if err != nil || len(cfg.Warnings) > 0 {
				t.Fatalf("Read: %v, %q", err, cfg.Warnings)
			}
			if d := cfg.Routing.Deployments[0]; d.APIBase != tt.base || d.APIKey.Reveal() != tt.key {
				t.Errorf("goes to %s with %s, want %s with %s", d.APIBase, d.APIKey.Reveal(), tt.base, tt.key)
			}
		})
	}
}

func TestWeights(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]int{
		"{weight: 9}": {9, 1}, "{weight: 0}": {0, 1}, "{weight: 0.9}": {900, 1000}, "{weight: 2.0}": {2, 1}, "{rpm: 900}": {1, 1},
	} {
		entry := "{model_name: a, litellm_params: {<<: " + text + ", model: claude-opus-5}}"
		got := read(t, "model_list: ["+entry+", {model_name: a, litellm_params: {model: claude-opus-4-8}}]").Deployments
		if got[0].Weight != want[0] || got[1].Weight != want[1] {
			t.Errorf("%s beside none: weights %d and %d, want %v", text, got[0].Weight, got[1].Weight, want)
		}
	}
}

func TestNoCooldownIsTheShortest(t *testing.T) {
	t.Parallel()
	if got := read(t, "model_list: [{model_name: a, litellm_params: {model: claude-opus-5, cooldown_time: 0}}]").Deployments[0].Cooldown; got != 1 {
		t.Errorf("Cooldown = %v, want the shortest, since 0 means not set", got)
	}
}

func TestMergedMappingsAndAliases(t *testing.T) {
	t.Parallel()
	got := read(t, `
model_list:
  - &first
    model_name: a
    litellm_params: &params {model: anthropic/claude-opus-5, rpm: 7, weight: 3}
  - {<<: *first, model_name: b, litellm_params: {<<: [*params, {tpm: 9}], weight: 5}}
`).Deployments
	if len(got) != 2 || got[1].ModelName != "b" || got[1].RPM != 7 || got[1].TPM != 9 || got[1].Weight != 5 {
		t.Errorf("deployments %+v", got)
	}
}

const priced = "input_cost_per_token: 1e-6, output_cost_per_token: 1e-6"

func TestAnIDIsTheSameForTheSameSettings(t *testing.T) {
	t.Parallel()
	id := func(params string) string {
		return read(t, "model_list: [{model_name: a, litellm_params: {"+params+"}}]").Deployments[0].ID
	}
	first := id("model: anthropic/claude-opus-5")
	if again := id("model: claude-opus-5, weight: 2, rpm: 5"); again != first {
		t.Errorf("ids %s and %s of one name, model, base and key", first, again)
	}
	if id("model: anthropic/m, api_base: http://x, "+priced) == id("model: openai/m, api_base: http://x, "+priced) {
		t.Error("two providers' deployments have one id")
	}
	for _, other := range []string{"model: claude-opus-4-8", "model: claude-opus-5, api_key: k", "model: claude-opus-5, api_base: http://x", "model: openai/claude-opus-5"} {
		if id(other) == first {
			t.Errorf("%s has the id of another deployment", other)
		}
	}
}

// TestTheDefaultServesEveryNameAndWarnsOfNothing also reads the example in its
// comments.
func TestTheDefaultServesEveryNameAndWarnsOfNothing(t *testing.T) {
	t.Parallel()
	routing := read(t, string(Default))
	if len(routing.Deployments) < 20 {
		t.Errorf("%d deployments", len(routing.Deployments))
	}
	var example []string
	for _, line := range regexp.MustCompile(`(?m)^#   (.*)$`).FindAllStringSubmatch(string(Default), -1) {
		example = append(example, "  "+line[1])
	}
	if got := read(t, "model_list:\n"+strings.Join(example, "\n")).Deployments; len(got) != 2 || got[0].Provider != proxy.OpenAI {
		t.Errorf("the example is %+v", got)
	}
}
