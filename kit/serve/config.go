package serve

import (
	"io"
	"net"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/env"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// Config is what every service needs to be reached.
type Config struct {
	Name       string // the service, e.g. "keysvc"
	GRPCListen string // host:port; port 0: any free one
	HTTPListen string
	// Tokens are accepted in `authorization: Bearer`: master keys, then
	// service tokens.
	Tokens []Token
	// ServiceToken is what this service sends to the others.
	ServiceToken secret.String
	// Drain is how long running calls may take after SIGTERM; DrainWait is how
	// long the service keeps taking new ones meanwhile, so that load balancers
	// can notice.
	Drain, DrainWait time.Duration
	LogLevel         string
	// LogTo takes the log; nil: standard error.
	LogTo io.Writer
}

// Token is a credential and the name under which its holder appears in logs
// and audit rows.
type Token struct {
	Actor  string
	Secret secret.String
}

// Defaults are a service's own default addresses and drain time.
type Defaults struct {
	GRPCListen, HTTPListen string
	Drain                  time.Duration
}

// LoadConfig reads <PREFIX>_GRPC_LISTEN, <PREFIX>_HTTP_LISTEN, <PREFIX>_DRAIN,
// <PREFIX>_DRAIN_WAIT, LOG_LEVEL, LLM_PROXY_MASTER_KEY (alias
// LITELLM_MASTER_KEY) and LLM_PROXY_SERVICE_TOKEN. Several master keys or
// service tokens, separated by commas, are all valid; the first service token
// is the one that is sent.
func LoadConfig(r *env.Reader, name, prefix string, d Defaults) Config {
	c := Config{
		Name:       name,
		GRPCListen: listen(r, prefix+"_GRPC_LISTEN", d.GRPCListen),
		HTTPListen: listen(r, prefix+"_HTTP_LISTEN", d.HTTPListen),
		Drain:      r.Duration(prefix+"_DRAIN", d.Drain),
		DrainWait:  r.Duration(prefix+"_DRAIN_WAIT", 100*time.Millisecond),
		LogLevel:   r.OneOf("LOG_LEVEL", "info", "debug", "info", "warn", "error"),
	}
	masters := r.List("LLM_PROXY_MASTER_KEY")
	masters = append(masters, r.List("LITELLM_MASTER_KEY")...)
	if len(masters) == 0 {
		r.Fault("LLM_PROXY_MASTER_KEY", "not set; it needs the key that administrators send, such as sk-… (alias LITELLM_MASTER_KEY)")
	}
	services := r.List("LLM_PROXY_SERVICE_TOKEN")
	if len(services) == 0 {
		r.Fault("LLM_PROXY_SERVICE_TOKEN", "not set; it needs a random text of at least 16 characters, the same for all services")
	}
	for _, s := range append(masters, services...) {
		if len(s) < 16 {
			r.Fault("LLM_PROXY_MASTER_KEY or LLM_PROXY_SERVICE_TOKEN", "has a value of %d characters; at least 16 are needed", len(s))
		}
	}
	for _, s := range masters {
		c.Tokens = append(c.Tokens, Token{Actor: "master", Secret: secret.New(s)})
	}
	for _, s := range services {
		c.Tokens = append(c.Tokens, Token{Actor: "service", Secret: secret.New(s)})
	}
	if len(services) > 0 {
		c.ServiceToken = secret.New(services[0])
	}
	return c
}

func listen(r *env.Reader, name, def string) string {
	addr := r.String(name, def)
	if _, _, err := net.SplitHostPort(addr); err != nil {
		r.Fault(name, "%q is not host:port, such as 127.0.0.1:9101 or :0", addr)
	}
	return addr
}
