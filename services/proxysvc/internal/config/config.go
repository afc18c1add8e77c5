// Package config reads LiteLLM's config.yaml: which model names clients may
// send, and which deployment serves each.
package config

import _ "embed" // the default configuration

// Default is the configuration that is used when none is given: every current
// Anthropic model under its short and its dated name.
//
//go:embed default.yaml
var Default []byte

// AnthropicBase is Anthropic's own API.
const AnthropicBase = "https://api.anthropic.com"
