package serve

import (
	"fmt"
	"io"
	"net"
	"strings"
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
	// AuthFailures is how many wrong credentials an address may send in a minute
	// before it is told to wait. Right ones are taken all the same. Zero: any number.
	AuthFailures int
	// TrustedProxies say where a caller is that comes through them.
	TrustedProxies Proxies
	// Caller is as whom this service calls the others. With an identity, gRPC is
	// served to those only who have one too.
	Caller Caller
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
	// Scope bounds what the holder may call. Empty: everything.
	Scope Scope
}

// Scope is a set of methods; which they are, each service says for itself.
type Scope string

// The scopes.
const (
	Issue Scope = "issue" // what the gateway needs to give sessions their keys, and to end them
	Read  Scope = "read"  // whatever changes nothing and shows no secret
)

const (
	actorMaster  = "master"
	actorService = "service"
)

// Defaults are a service's own default addresses and drain time.
type Defaults struct {
	GRPCListen, HTTPListen string
	Drain                  time.Duration
}

// LoadConfig reads <PREFIX>_GRPC_LISTEN, <PREFIX>_HTTP_LISTEN, <PREFIX>_DRAIN,
// <PREFIX>_DRAIN_WAIT, <PREFIX>_TRUSTED_PROXIES, LOG_LEVEL, LLM_PROXY_MASTER_KEY (alias
// LITELLM_MASTER_KEY), LLM_PROXY_SERVICE_TOKEN, LLM_PROXY_ADMIN_TOKENS,
// LLM_PROXY_AUTH_FAILURES and the files of an Identity. Several master keys or
// service tokens, separated by commas, are all valid; the first service token is
// the one that is sent. Nothing is served without a credential: both are needed,
// unless certificates are configured.
func LoadConfig(r *env.Reader, name, prefix string, d Defaults) Config {
	c := Config{
		Name:       name,
		GRPCListen: listen(r, prefix+"_GRPC_LISTEN", d.GRPCListen),
		HTTPListen: listen(r, prefix+"_HTTP_LISTEN", d.HTTPListen),
		Drain:      r.Duration(prefix+"_DRAIN", d.Drain),
		DrainWait:  r.Duration(prefix+"_DRAIN_WAIT", 100*time.Millisecond),
		LogLevel:   r.OneOf("LOG_LEVEL", "info", "debug", "info", "warn", "error"),

		AuthFailures:   r.Int("LLM_PROXY_AUTH_FAILURES", 60, 0, 1_000_000),
		TrustedProxies: readProxies(r, prefix+"_TRUSTED_PROXIES"),
	}
	c.Caller.Identity = ReadIdentity(r)
	needed := c.Caller.Identity == nil
	masters := r.List("LLM_PROXY_MASTER_KEY")
	masters = append(masters, r.List("LITELLM_MASTER_KEY")...)
	if needed && len(masters) == 0 {
		r.Fault("LLM_PROXY_MASTER_KEY", "not set; it needs the key that administrators send, such as sk-… (alias LITELLM_MASTER_KEY)")
	}
	services := r.List("LLM_PROXY_SERVICE_TOKEN")
	if needed && len(services) == 0 {
		r.Fault("LLM_PROXY_SERVICE_TOKEN", "not set; it needs a random text of at least 16 characters, the same for all services, or certificates instead")
	}
	for _, s := range append(masters, services...) {
		if len(s) < 16 {
			r.Fault("LLM_PROXY_MASTER_KEY or LLM_PROXY_SERVICE_TOKEN", "has a value of %d characters; at least 16 are needed", len(s))
		}
	}
	for _, s := range masters {
		c.Tokens = append(c.Tokens, Token{Actor: actorMaster, Secret: secret.New(s)})
	}
	for _, s := range services {
		c.Tokens = append(c.Tokens, Token{Actor: actorService, Secret: secret.New(s)})
	}
	if len(services) > 0 {
		c.Caller.Token = secret.New(services[0])
	}
	c.Tokens = append(c.Tokens, adminTokens(r)...)
	return c
}

// adminTokens are those whose holders may call what their scope allows; each service
// says in Options.Allow what the scopes mean.
func adminTokens(r *env.Reader) []Token {
	const name = "LLM_PROXY_ADMIN_TOKENS"
	var out []Token
	seen := map[string]bool{actorMaster: true, actorService: true}
	for i, entry := range r.List(name) {
		t, fault := adminToken(entry)
		if fault == "" && seen[t.Actor] {
			fault = fmt.Sprintf("has the name %q, which is taken", t.Actor)
		}
		if fault != "" {
			r.Fault(name, "entry %d %s", i+1, fault) // without the entry, which holds a secret
			continue
		}
		seen[t.Actor] = true
		out = append(out, t)
	}
	return out
}

// adminToken reads name:scope:token.
func adminToken(entry string) (t Token, fault string) {
	name, rest, _ := strings.Cut(entry, ":")
	scope, text, ok := strings.Cut(rest, ":")
	switch {
	case !ok:
		return t, "is not NAME:SCOPE:TOKEN"
	case name == "" || len(name) > 64 || strings.IndexFunc(name, notIDRune) >= 0:
		return t, "has a name that is not 1 to 64 letters, digits, - _ ."
	case len(text) < 16:
		return t, fmt.Sprintf("has a token of %d characters; at least 16 are needed", len(text))
	}
	t = Token{Actor: name, Secret: secret.New(text), Scope: Scope(scope)}
	switch t.Scope {
	case "admin":
		t.Scope = ""
	case Issue, Read:
	default:
		return t, "has a scope that is not admin, issue or read"
	}
	return t, ""
}

func listen(r *env.Reader, name, def string) string {
	addr := r.String(name, def)
	if _, _, err := net.SplitHostPort(addr); err != nil {
		r.Fault(name, "%q is not host:port, such as 127.0.0.1:9101 or :0", addr)
	}
	return addr
}
