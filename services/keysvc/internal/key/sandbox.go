package key

import "github.com/proliferate-ai/llm-proxy/kit/secret"

// Sandbox is what an untrusted machine needs to use a key: the key and where
// the proxy is. URL has no trailing slash and no /v1.
type Sandbox struct {
	URL    string
	Secret secret.String
}

// Env is the sandbox's environment. Anthropic's own clients append /v1 to their
// base URL.
func (s Sandbox) Env() map[string]string {
	return map[string]string{
		"ANTHROPIC_API_KEY":  s.Secret.Reveal(),
		"ANTHROPIC_BASE_URL": s.URL,
		"LLM_PROXY_API_KEY":  s.Secret.Reveal(),
		"LLM_PROXY_URL":      s.URL,
	}
}

// OpenCode is the content of an opencode.json. OpenCode's client does not
// append /v1 to its base URL.
func (s Sandbox) OpenCode() map[string]any {
	options := map[string]any{"baseURL": s.URL + "/v1", "apiKey": s.Secret.Reveal()}
	return map[string]any{
		"$schema":  "https://opencode.ai/config.json",
		"provider": map[string]any{"anthropic": map[string]any{"options": options}},
	}
}
