package llmproxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config is what a Client needs. The zero Config is direct mode.
type Config struct {
	// URL is where the proxy is reached, with or without /v1. Empty: direct mode.
	URL string
	// AdminURL is where its administrators' routes are. Empty: URL.
	AdminURL string
	// PublicURL is where sandboxes reach the proxy. Empty: a session's environment
	// is as the proxy makes it, and everything else uses URL.
	PublicURL string
	// MasterKey is a master key, or an admin token: one of scope issue may issue and
	// revoke keys, make teams and end sessions; one of scope read may list spend.
	MasterKey Secret
	// KeyDuration is the life of keys that do not ask for one, such as "24h". Empty:
	// the proxy's default.
	KeyDuration string
	// Required makes New fail without a URL, so that no sandbox gets the real key.
	Required bool
	// AnthropicAPIKey is what sessions get in direct mode.
	AnthropicAPIKey Secret

	// HTTPClient sends the requests. Nil: one that follows no redirect.
	HTTPClient *http.Client
	// Timeout bounds one attempt of a call. Zero: 30 seconds.
	Timeout time.Duration
	// MaxRetries is how often a call that may be repeated is sent again. Zero:
	// twice; negative: never.
	MaxRetries int
}

// ConfigFromEnv reads LLM_PROXY_URL, LLM_PROXY_ADMIN_URL, LLM_PROXY_PUBLIC_URL,
// LLM_PROXY_MASTER_KEY, LLM_PROXY_KEY_DURATION, LLM_PROXY_REQUIRED and
// ANTHROPIC_API_KEY; getenv is os.Getenv, or a test's. It fails when
// LLM_PROXY_REQUIRED is neither true (1) nor false (0, empty); New checks the rest.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	get := func(name string) string { return strings.TrimSpace(getenv(name)) }
	cfg := Config{
		URL: get("LLM_PROXY_URL"), AdminURL: get("LLM_PROXY_ADMIN_URL"), PublicURL: get("LLM_PROXY_PUBLIC_URL"),
		MasterKey: Secret(get("LLM_PROXY_MASTER_KEY")), KeyDuration: get("LLM_PROXY_KEY_DURATION"),
		AnthropicAPIKey: Secret(get("ANTHROPIC_API_KEY")),
	}
	switch strings.ToLower(get("LLM_PROXY_REQUIRED")) {
	case "true", "1":
		cfg.Required = true
	case "", "false", "0":
	default:
		return Config{}, errors.New("LLM_PROXY_REQUIRED is neither true nor false")
	}
	return cfg, nil
}

// checked brings the URLs into their plain form, or says what is wrong with the
// configuration. It names settings and shows no values.
func (cfg Config) checked() (Config, error) {
	var errs []error
	for _, u := range []struct {
		name  string
		value *string
	}{
		{"LLM_PROXY_URL", &cfg.URL}, {"LLM_PROXY_ADMIN_URL", &cfg.AdminURL}, {"LLM_PROXY_PUBLIC_URL", &cfg.PublicURL},
	} {
		root, err := rootURL(*u.value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", u.name, err))
		}
		*u.value = root
	}
	if cfg.URL == "" && len(errs) == 0 {
		switch {
		case cfg.Required:
			errs = append(errs, errors.New("LLM_PROXY_REQUIRED is true, but LLM_PROXY_URL is not set"))
		case cfg.AdminURL != "" || cfg.PublicURL != "":
			errs = append(errs, errors.New("LLM_PROXY_ADMIN_URL or LLM_PROXY_PUBLIC_URL is set, but LLM_PROXY_URL is not"))
		}
	}
	if strings.ContainsFunc(string(cfg.MasterKey), func(r rune) bool { return r <= ' ' || r > '~' }) {
		errs = append(errs, errors.New("LLM_PROXY_MASTER_KEY has characters that no header can carry"))
	}
	return cfg, errors.Join(errs...)
}

// rootURL is a proxy's URL without slashes and /v1 at its end.
func rootURL(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", errors.New("is not an http or https URL")
	case u.User != nil:
		return "", errors.New("holds a user name or password; use LLM_PROXY_MASTER_KEY")
	case u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(text, "?#"):
		return "", errors.New("has a query or a fragment")
	}
	root := strings.TrimRight(text, "/")
	for strings.HasSuffix(root, "/v1") {
		root = strings.TrimRight(strings.TrimSuffix(root, "/v1"), "/")
	}
	return root, nil
}
