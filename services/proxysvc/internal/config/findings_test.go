package config

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// good is a configuration that others are made of.
const good = `model_list:
  - model_name: a
    litellm_params:
      model: anthropic/claude-opus-5
  - model_name: b
    litellm_params: {model: openai/gpt-5}
`

func TestWhatIsWrongIsAnErrorWithItsPlace(t *testing.T) {
	t.Parallel()
	entry := func(params string) string {
		return "model_list:\n- model_name: a\n  litellm_params: {model: claude-opus-5, " + params + "}\n"
	}
	tests := []struct{ name, text, want string }{
		{"an empty file", "", "1:1: the file is empty"},
		{"nothing but a comment", "# nothing\n", "1:1: the file is empty"},
		{"broken YAML", "model_list:\n  - [\n", "2:1: not YAML: did not find expected node content"},
		{"a tab", "model_list:\n\t- a\n", "2:1: not YAML: found character that cannot start any token"},
		{"an anchor that nobody set", "model_list:\n  - *nobody\n", "2:5: not YAML: unknown anchor 'nobody' referenced"},
		{"two documents", good + "---\na: b\n", "7:1: a second document; one is read"},
		{"a list as the file", "- a\n", "1:1: needs a mapping of settings"},
		{"no models", "model_list: []\n", "1:1: model_list: is empty; it needs at least one model_name with litellm_params"},
		{"models that are no list", "model_list: {a: b}\n", "1:13: model_list: needs a list"},
		{"no model_name", "model_list:\n- litellm_params: {model: claude-opus-5}\n", "2:3: model_list[0].model_name: is missing"},
		{"an empty model_name", "model_list:\n- {model_name: ' ', litellm_params: {model: claude-opus-5}}\n", "2:16: model_list[0].model_name: is empty"},
		{"a model_name that is none", "model_list:\n- {model_name: {a: b}, litellm_params: {model: claude-opus-5}}\n", "2:16: model_list[0].model_name: needs text or a number"},
		{"no model", "model_list:\n- {model_name: a, litellm_params: {rpm: 1}}\n", "2:35: model_list[0].litellm_params.model: is missing; it needs the form anthropic/MODEL or openai/MODEL"},
		{"no litellm_params", "model_list:\n- model_name: a\n", "2:3: model_list[0].litellm_params.model: is missing; it needs the form anthropic/MODEL or openai/MODEL"},
		{"a provider that is not served", "model_list:\n- {model_name: a, litellm_params: {model: bedrock/claude}}\n", `2:43: model_list[0].litellm_params.model: "bedrock/claude": the provider "bedrock" is not served; anthropic and openai are`},
		{"a provider alone", "model_list:\n- {model_name: a, litellm_params: {model: openai/}}\n", `2:43: model_list[0].litellm_params.model: "openai/" needs the form anthropic/MODEL or openai/MODEL`},
		{"a wildcard that stands for nothing", "model_list:\n- {model_name: a, litellm_params: {model: openai/*}}\n", `2:43: model_list[0].litellm_params.model: "openai/*": its "*" needs one at the end of model_name`},
		{"a star in the middle", "model_list:\n- {model_name: a*b, litellm_params: {model: claude-opus-5}}\n", `2:16: model_list[0].model_name: "a*b": a "*" can only stand at the end`},
		{"a negative weight", entry("weight: -1"), `3:50: model_list[0].litellm_params.weight: "-1" is not a number from 0 to 1000000 with at most 3 decimals`},
		{"a weight in words", entry("weight: heavy"), `3:50: model_list[0].litellm_params.weight: "heavy" is not a number from 0 to 1000000 with at most 3 decimals`},
		{"rpm in words", entry("rpm: many"), `3:47: model_list[0].litellm_params.rpm: "many" is not a whole number from 1 to 1000000000000`},
		{"an rpm with a fraction", entry("rpm: 1.5"), `3:47: model_list[0].litellm_params.rpm: "1.5" is not a whole number from 1 to 1000000000000`},
		{"no requests at all", entry("rpm: 0"), `3:47: model_list[0].litellm_params.rpm: "0" is not a whole number from 1 to 1000000000000`},
		{"a list for a number", entry("tpm: [1]"), "3:47: model_list[0].litellm_params.tpm: needs text or a number"},
		{"a negative timeout", entry("timeout: -1"), `3:51: model_list[0].litellm_params.timeout: "-1" is negative`},
		{"a timeout of nothing", entry("timeout: 0"), "3:51: model_list[0].litellm_params.timeout: must be more than 0"},
		{"a timeout in words", entry("timeout: soon"), `3:51: model_list[0].litellm_params.timeout: "soon" is not a number of seconds or a duration such as "30s"`},
		{"a timeout of ages", entry("timeout: 1e9"), `3:51: model_list[0].litellm_params.timeout: "1e9" is more than a year`},
		{"not a number", entry("timeout: .nan"), `3:51: model_list[0].litellm_params.timeout: ".nan" is not a number of seconds or a duration such as "30s"`},
		{"no URL", entry("api_base: example.com"), "3:52: model_list[0].litellm_params.api_base: not an http or https URL"},
		{"a URL of another kind", entry("api_base: 'ftp://x'"), "3:52: model_list[0].litellm_params.api_base: not an http or https URL"},
		{"a URL with a query", entry("api_base: 'http://x?key=1'"), "3:52: model_list[0].litellm_params.api_base: a URL with a query or fragment"},
		{"a URL with a password", entry("api_base: 'http://u:" + canary + "@x'"), "3:52: model_list[0].litellm_params.api_base: a URL with a name or password in it"},
		{"a variable that holds no URL", entry("api_base: os.environ/NOT_A_URL"), "3:52: NOT_A_URL: not an http or https URL"},
		{"a variable that is not set", entry("api_key: os.environ/MISSING"), "3:51: MISSING: not set; model_list[0].litellm_params.api_key needs it"},
		{"a variable without a name", entry("api_key: os.environ/"), "3:51: model_list[0].litellm_params.api_key: os.environ/ needs the name of a variable after it"},
		{"a path as a variable", entry("api_key: os.environ/../../secret"), "3:51: model_list[0].litellm_params.api_key: os.environ/ needs the name of a variable after it"},
		{"a base of a variable without a name", entry("api_base: os.environ/"), "3:52: model_list[0].litellm_params.api_base: os.environ/ needs the name of a variable after it"},
		{"an empty key", entry(`api_key: ""`), "3:51: model_list[0].litellm_params.api_key: is empty"},
		{"a mapping as a key", entry("api_key: {a: b}"), "3:51: model_list[0].litellm_params.api_key: needs text or a number"},
		{"a setting twice", entry("rpm: 1, rpm: 2"), "3:50: model_list[0].litellm_params.rpm: set twice, first in line 3"},
		{"a merge of something else", "model_list:\n- {model_name: a, litellm_params: {<<: b, model: claude-opus-5}}\n", "2:40: model_list[0].litellm_params.<<: only mappings can be merged"},
		{"one id twice", "model_list:\n- {model_name: a, litellm_params: {model: claude-opus-5}, model_info: {id: x}}\n- {model_name: b, litellm_params: {model: claude-opus-5}, model_info: {id: x}}\n", "3:76: model_list[1]: is the same deployment as the one in line 2; give each a model_info.id of its own"},
		{"one entry twice", "model_list:\n- {model_name: a, litellm_params: {model: claude-opus-5}}\n- {model_name: a, litellm_params: {model: claude-opus-5}}\n", "3:3: model_list[1]: is the same deployment as the one in line 2; give each a model_info.id of its own"},
		{"a fallback from an unknown name", good + "router_settings:\n  fallbacks: [{c: [a]}]\n", `8:16: router_settings.fallbacks.c: "c" is no model_name`},
		{"a fallback to an unknown name", good + "router_settings:\n  fallbacks: [{a: [b, c]}]\n", `8:23: router_settings.fallbacks.a: "c" is no model_name`},
		{"fallbacks that are no list", good + "router_settings:\n  fallbacks: {a: [b]}\n", "8:14: router_settings.fallbacks: needs a list"},
		{"fallbacks of one name twice", good + "router_settings:\n  fallbacks: [{a: [b]}, {a: [b]}]\n", "8:26: router_settings.fallbacks.a: has fallbacks already"},
		{"fallbacks to nothing", good + "router_settings:\n  fallbacks: [{a: }]\n", "8:16: router_settings.fallbacks.a: needs a list of names"},
		{"default fallbacks to an unknown name", good + "litellm_settings:\n  default_fallbacks: [c]\n", `8:23: litellm_settings.default_fallbacks: "c" is no model_name`},
		{"two kinds of default fallbacks", good + "router_settings:\n  fallbacks: [{'*': [a]}]\n  default_fallbacks: [b]\n", `9:22: router_settings.default_fallbacks: fallbacks has an entry for "*" already`},
		{"an alias of nothing", good + "router_settings:\n  model_group_alias: {x: y}\n", `8:26: router_settings.model_group_alias.x: "y" is no model_name`},
		{"an alias without a model", good + "router_settings:\n  model_group_alias: {x: {hidden: true}}\n", "8:23: router_settings.model_group_alias.x: needs a model's name"},
		{"an alias of itself", good + "router_settings:\n  model_group_alias: {x: x}\n", "8:26: router_settings.model_group_alias.x: the aliases go in a circle"},
		{"a section that is a list", good + "router_settings: [a]\n", "7:18: router_settings: needs a mapping of settings"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Read([]byte(tt.text), keys, book(t))
			if err == nil || err.Error() != "config.yaml:"+tt.want {
				t.Errorf("Read = %v\nwant   config.yaml:%s", err, tt.want)
			}
			if cfg.Routing.Deployments != nil {
				t.Error("a bad file has a routing")
			}
		})
	}
}

func TestAllErrorsAreReportedTogetherInTheOrderOfTheFile(t *testing.T) {
	t.Parallel()
	_, err := Read([]byte(`router_settings:
  timeout: -1
  model_group_alias: {x: y, y: x}
model_list:
  - litellm_params: {model: gemini/x, rpm: many, api_key: os.environ/NOPE}
  - {model_name: b, litellm_params: {model: claude-opus-5, api_key: os.environ/NOPE}}
litellm_settings: {num_retries: 1000}
`), keys, book(t))
	if err == nil {
		t.Fatal("Read took a bad file")
	}
	lines := strings.Split(err.Error(), "\n")
	var at []string
	for _, line := range lines {
		at = append(at, strings.Join(strings.SplitN(line, ":", 4)[1:3], ":"))
	}
	if want := []string{"2:12", "3:26", "3:32", "5:5", "5:29", "5:44", "5:59", "7:33"}; !slices.Equal(at, want) {
		t.Errorf("errors at %v, want %v:\n%v", at, want, err)
	}
}

func TestALookUpThatFailsNamesItsVariable(t *testing.T) {
	t.Parallel()
	_, err := Read([]byte(good), func(name string) (string, error) {
		return "", errors.New("permission denied")
	}, book(t))
	if err == nil || !strings.Contains(err.Error(), "config.yaml:4:7: ANTHROPIC_API_KEY: permission denied") {
		t.Errorf("Read = %v, want it to name the variable", err)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown settings, each with its path", good + "router_setings: {a: 1}\nrouter_settings: {num_retrys: 1}\n", []string{
			"7:1: router_setings: unknown setting", "8:19: router_settings.num_retrys: unknown setting",
		}},
		{"one in an entry", "model_list: [{model_name: a, litellm_params: {model: claude-opus-5, foo: 1, \"b\\nb\": 2}}]\n", []string{
			"1:69: model_list[0].litellm_params.foo: unknown setting", `1:77: model_list[0].litellm_params."b\nb": unknown setting`,
		}},
		{"settings that have no effect", good + "litellm_settings: {callbacks: [x], cost_margin_config: {a: 1}}\nguardrails: []\n", []string{
			"7:20: litellm_settings.callbacks: has no effect here",
			"7:36: litellm_settings.cost_margin_config: has no effect here: costs are the price list's, and billingsvc's the markup",
			"8:1: guardrails: has no effect here",
		}},
		{"the environment is used instead", good + "general_settings: {master_key: sk-1, database_url: os.environ/NOT_LOOKED_UP}\n", []string{
			"7:20: general_settings.master_key: has no effect here: the environment is used instead (LLM_PROXY_MASTER_KEY)",
			"7:38: general_settings.database_url: has no effect here: the environment is used instead (DATABASE_URL)",
		}},
		{"what can be had anyway", good + "litellm_settings: {drop_params: true, set_verbose: false}\ngeneral_settings: {proxy_batch_write_at: 60}\n", nil},
		{"another strategy", good + "router_settings: {routing_strategy: least-busy}\n", []string{
			`7:37: router_settings.routing_strategy: "least-busy" has no effect here: simple-shuffle is what happens, and a session stays on its deployment`,
		}},
		{"a model without a price", "model_list: [{model_name: a, litellm_params: {model: claude-unheard-of}}]\n", []string{
			"1:54: model_list[0].litellm_params.model: model claude-unheard-of has no price, so requests are refused; give input_cost_per_token and output_cost_per_token, or model_info.base_model",
		}},
		{"a name of two lines", "model_list: [{model_name: a, litellm_params: {model: \"x\\ny\"}}]\n", []string{
			"1:54: model_list[0].litellm_params.model: model x y has no price, so requests are refused; give input_cost_per_token and output_cost_per_token, or model_info.base_model",
		}},
		{"a limit of a wildcard without prices", "model_list: [{model_name: '*', litellm_params: {model: 'anthropic/*'}, model_info: {max_tokens: 8192}}]\n", []string{
			"1:97: model_list[0].model_info.max_tokens: has no effect without prices: the price list has no model *",
		}},
		{"a model that is free", "model_list: [{model_name: a, litellm_params: {model: m, input_cost_per_token: 0, output_cost_per_token: 0.0}}]\n", []string{
			"1:79: model_list[0].litellm_params: input and output cost nothing: a is free, whatever the budget",
		}},
		{"a wildcard that loses a part of the name", "model_list: [{model_name: 'claude-*', litellm_params: {model: 'anthropic/*'}}]\n", []string{
			`1:63: model_list[0].litellm_params.model: "anthropic/*": the upstream is asked for what "*" stands for in "claude-*", without "claude-"; anthropic/claude-* is likely meant`,
		}},
		{"wildcards as they should be", "model_list: [{model_name: '*', litellm_params: {model: 'anthropic/*'}}, {model_name: 'openai/*', litellm_params: {model: 'openai/*'}}]\n", nil},
		{"an alias that hides a name", good + "router_settings: {model_group_alias: {a: b}}\n", []string{`7:39: router_settings.model_group_alias.a: hides the model_name "a"`}},
		{"a hidden alias", good + "router_settings: {model_group_alias: {x: {model: a, hidden: true}}}\n", []string{
			"7:61: router_settings.model_group_alias.x.hidden: has no effect here: aliases are never listed",
		}},
		{"a fallback to itself", good + "router_settings: {fallbacks: [{a: [a, b]}]}\n", []string{"7:36: router_settings.fallbacks.a: a name that falls back to itself gains nothing by it"}},
		{"a price for a service tier", "model_list: [{model_name: a, litellm_params: {model: claude-opus-5}, model_info: {input_cost_per_token_priority: 1e-06, access_groups: [x]}}]\n", []string{
			"1:83: model_list[0].model_info.input_cost_per_token_priority: has no effect here: service tiers cost what the price list says, times these prices",
			"1:121: model_list[0].model_info.access_groups: has no effect here: name the models in key and team lists",
		}},
		{"a setting that stands too high", "model_list: [{model_name: a, rpm: 5, litellm_params: {model: claude-opus-5}}]\n", []string{
			"1:30: model_list[0].rpm: has no effect here: it belongs under litellm_params",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := Read([]byte(tt.text), keys, book(t))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, w := range tt.want {
				want = append(want, "config.yaml:"+w)
			}
			if !slices.Equal(cfg.Warnings, want) {
				t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(cfg.Warnings, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestASettingIsSortedOnce: what is read or accepted is never said to be idle.
func TestASettingIsSortedOnce(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]settings{
		"file": fileSettings, "entry": entrySettings, "litellm_params": paramsSettings, "model_info": infoSettings,
		"router_settings": routerSettings, "litellm_settings": litellmSettings, "general_settings": generalSettings,
	} {
		for setting := range table.accepted {
			if _, both := table.idle[setting]; both {
				t.Errorf("%s: %s is sorted twice", name, setting)
			}
		}
	}
}

var placed = regexp.MustCompile(`^config\.yaml:[1-9]\d*:[1-9]\d*: .`)

// FuzzRead: no text makes it panic, every line of an error has a place, and no
// error or warning shows a secret.
func FuzzRead(f *testing.F) {
	f.Add(good)
	f.Add(string(Default))
	b := book(f)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, canary) {
			return
		}
		cfg, err := Read([]byte(text), keys, b)
		said := cfg.Warnings
		if err != nil {
			said = append(said, strings.Split(err.Error(), "\n")...)
		} else if len(cfg.Routing.Deployments) == 0 {
			t.Error("a good file without deployments")
		}
		for _, line := range said {
			if !placed.MatchString(line) || strings.Contains(line, canary) {
				t.Errorf("it says %q", line)
			}
		}
		for _, d := range cfg.Routing.Deployments {
			if d.ID == "" || d.ModelName == "" || d.Model == "" || d.APIKey.Empty() || !strings.HasPrefix(d.APIBase, "http") || d.Weight < 0 {
				t.Errorf("a deployment that cannot work: %+v", d)
			}
		}
	})
}
