// Package config reads LiteLLM's config.yaml: which model names clients may
// send, and which deployment serves each.
package config

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Default is the configuration that is used when none is given: every current
// Anthropic model under its short and its dated name.
//
//go:embed default.yaml
var Default []byte

// AnthropicBase is Anthropic's own API.
const AnthropicBase = "https://api.anthropic.com"

type file struct {
	ModelList []struct {
		ModelName     string `yaml:"model_name"`
		LiteLLMParams struct {
			Model   string `yaml:"model"`
			APIKey  string `yaml:"api_key"`
			APIBase string `yaml:"api_base"`
		} `yaml:"litellm_params"`
		ModelInfo struct {
			ID string `yaml:"id"`
		} `yaml:"model_info"`
	} `yaml:"model_list"`
}

// Load reads the deployments. A value "os.environ/NAME" is read from the
// environment. An entry without api_base goes to ANTHROPIC_API_BASE, or to
// Anthropic itself. All faults are reported together, with their place.
func Load(text []byte, getenv func(string) string) ([]proxy.Deployment, error) {
	var f file
	if err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&f); err != nil {
		return nil, fmt.Errorf("config.yaml: %w", err)
	}
	if len(f.ModelList) == 0 {
		return nil, errors.New("config.yaml: model_list is empty; it needs at least one model_name with litellm_params")
	}
	var out []proxy.Deployment
	var faults []error
	missing := map[string]bool{} // variables, each reported once
	for i, m := range f.ModelList {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("config.yaml: model_list[%d] (%s): %s", i, m.ModelName, fmt.Sprintf(format, args...)))
		}
		if m.ModelName == "" {
			fault("model_name is missing")
		}
		provider, model, ok := strings.Cut(m.LiteLLMParams.Model, "/")
		if !ok {
			provider, model = "anthropic", m.LiteLLMParams.Model
		}
		if provider != "anthropic" || model == "" {
			fault("litellm_params.model is %q; it needs the form anthropic/MODEL", m.LiteLLMParams.Model)
		}
		key := fromEnvironment(m.LiteLLMParams.APIKey, getenv, missing)
		base := fromEnvironment(m.LiteLLMParams.APIBase, getenv, missing)
		if base == "" {
			base = getenv("ANTHROPIC_API_BASE")
		}
		base, err := apiBase(base)
		if err != nil {
			fault("api_base: %v", err)
		}
		id := m.ModelInfo.ID
		if id == "" {
			h := sha256.Sum256([]byte(m.ModelName + "\n" + model + "\n" + base + "\n" + key))
			id = hex.EncodeToString(h[:16])
		}
		out = append(out, proxy.Deployment{ID: id, ModelName: m.ModelName, Model: model, APIBase: base, APIKey: secret.New(key)})
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		faults = append(faults, fmt.Errorf("%s: not set; config.yaml refers to it as os.environ/%s", name, name))
	}
	return out, errors.Join(faults...)
}

// fromEnvironment resolves "os.environ/NAME" and notes names that are not set.
func fromEnvironment(value string, getenv func(string) string, missing map[string]bool) string {
	name, ok := strings.CutPrefix(value, "os.environ/")
	if !ok {
		return value
	}
	v := strings.TrimSpace(getenv(name))
	if v == "" {
		missing[name] = true
	}
	return v
}

// apiBase checks a base URL and takes off a trailing slash or /v1, which some
// write and some do not.
func apiBase(base string) (string, error) {
	if base == "" {
		return AnthropicBase, nil
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is not an http or https URL", base)
	}
	return strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/v1"), nil
}
