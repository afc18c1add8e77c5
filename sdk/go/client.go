package llmproxy

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client calls one proxy. It is safe for concurrent use and never changes.
type Client struct {
	cfg     Config
	admin   string
	http    *http.Client
	timeout time.Duration
	retries int
}

// New makes a client. It calls nobody, and fails when the configuration is wrong
// or when a proxy is required and there is none.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.checked()
	if err != nil {
		return nil, fmt.Errorf("configure the LLM proxy: %w", err)
	}
	c := &Client{
		cfg: cfg, admin: cmp.Or(cfg.AdminURL, cfg.URL), http: cfg.HTTPClient,
		timeout: cmp.Or(cfg.Timeout, 30*time.Second), retries: max(cmp.Or(cfg.MaxRetries, 2), 0),
	}
	if c.http == nil {
		c.http = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return c, nil
}

// Enabled says whether there is a proxy. If not, the client is in direct mode.
func (c *Client) Enabled() bool { return c.cfg.URL != "" }

// URL is where sandboxes reach the proxy, without /v1: what Anthropic's own
// clients take as ANTHROPIC_BASE_URL. Empty in direct mode.
func (c *Client) URL() string { return cmp.Or(c.cfg.PublicURL, c.cfg.URL) }

// BaseURL is URL with exactly one /v1: what OpenCode, the AI SDK and OpenAI's
// clients take as their base URL. Empty in direct mode.
func (c *Client) BaseURL() string {
	if !c.Enabled() {
		return ""
	}
	return c.URL() + "/v1"
}

// OpencodeConfig is the content of an opencode.json that uses the key. In direct
// mode the key is not used: OpenCode finds ANTHROPIC_API_KEY by itself. model, if it
// is not empty, becomes OpenCode's, such as "anthropic/claude-sonnet-4-5".
func (c *Client) OpencodeConfig(key, model string) map[string]any {
	doc := map[string]any{"$schema": "https://opencode.ai/config.json"}
	if model != "" {
		doc["model"] = model
	}
	if c.Enabled() {
		options := map[string]any{"baseURL": c.BaseURL(), "apiKey": key}
		doc["provider"] = map[string]any{"anthropic": map[string]any{"options": options}}
	}
	return doc
}

// segment is an id as a part of a path. The proxy's routes have no place for a
// slash, and dots alone would name another route.
func segment(op, name, id string) (string, error) {
	switch {
	case id == "":
		return "", fmt.Errorf("%s: the %s is empty", op, name)
	case id == ".", id == "..":
		return "", fmt.Errorf("%s: the %s consists of dots", op, name)
	case strings.Contains(id, "/"):
		return "", fmt.Errorf("%s: the %s holds a slash", op, name)
	}
	return url.PathEscape(id), nil
}
