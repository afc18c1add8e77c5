package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// OpenAIBase is OpenAI's own API.
const OpenAIBase = "https://api.openai.com"

// upstream says where a provider's deployments go and whose key they use unless
// the entry says so itself.
type upstream struct {
	key   string   // variable
	bases []string // variables, the first that is set
	base  string
}

var upstreams = map[proxy.Provider]upstream{
	proxy.Anthropic: {"ANTHROPIC_API_KEY", []string{"ANTHROPIC_API_BASE"}, AnthropicBase},
	proxy.OpenAI:    {"OPENAI_API_KEY", []string{"OPENAI_API_BASE", "OPENAI_BASE_URL"}, OpenAIBase},
}

// models reads model_list.
func (r *reader) models(s *section) []proxy.Deployment {
	items := s.list("model_list")
	if len(items) == 0 && len(r.faults) == 0 {
		r.fault(s.node, "model_list", "is empty; it needs at least one model_name with litellm_params")
	}
	var out []proxy.Deployment
	var weights []int64
	seen := map[string]int{} // id → line
	for i, item := range items {
		d, weight := r.entry(r.section(item, fmt.Sprintf("model_list[%d]", i)), seen)
		out, weights = append(out, d), append(weights, weight)
	}
	weigh(out, weights)
	return out
}

// entry reads one entry of model_list; the weight is in thousandths. seen are the
// ids before it.
func (r *reader) entry(e *section, seen map[string]int) (d proxy.Deployment, weight int64) {
	faults := len(r.faults)
	params, info := e.sub("litellm_params"), e.sub("model_info")
	d.ModelName = e.modelName()
	d.Provider, d.Model = r.model(params, d.ModelName)
	d.APIBase, d.APIKey = r.base(params, d.Provider), secret.New(r.key(params, d.Provider))
	d.Order = int(params.whole("order", 0, -maxCount, maxCount))
	d.RPM = params.whole("rpm", 0, 1, maxCount)
	d.TPM = params.whole("tpm", 0, 1, maxCount)
	d.Timeout = params.seconds("timeout", 0, 1)
	d.StreamTimeout = params.seconds("stream_timeout", 0, 1)
	d.Cooldown = params.cooldown()
	if params.take("max_retries") != nil {
		n := int(params.whole("max_retries", 0, 0, maxRetries))
		d.MaxRetries = &n
	}
	weight = params.weight()
	d.Price = r.price(params, info, d)
	d.ID = info.text("id")
	if d.ID == "" {
		d.ID = hashed(d)
	}
	if len(r.faults) == faults {
		at := orNode(info.take("id"), e.node)
		if line, twice := seen[d.ID]; twice {
			r.fault(at, e.path, "is the same deployment as the one in line %d; give each a model_info.id of its own", line)
		}
		seen[d.ID] = at.Line
	}
	e.rest(entrySettings)
	params.rest(paramsSettings)
	info.rest(infoSettings)
	return d, weight
}

// hashed makes an id that is the same for the same name, model, place and key.
func hashed(d proxy.Deployment) string {
	h := sha256.Sum256([]byte(strings.Join([]string{d.ModelName, string(d.Provider), d.Model, d.APIBase, d.APIKey.Reveal()}, "\n")))
	return hex.EncodeToString(h[:16])
}

// Bounds of what a configuration can sensibly say.
const (
	maxCount   = 1_000_000_000_000
	maxRetries = 100
)

func (s *section) modelName() string {
	path, name, n := join(s.path, "model_name"), s.text("model_name"), s.take("model_name")
	switch {
	case n == nil:
		s.r.fault(s.node, path, "is missing")
	case name == "" && n.Kind == yaml.ScalarNode:
		s.r.fault(n, path, "is empty")
	case stars(name):
		s.r.fault(n, path, `%q: a "*" can only stand at the end`, name)
	}
	return name
}

// stars says that a "*" stands elsewhere than at the end.
func stars(name string) bool { return strings.Contains(strings.TrimSuffix(name, "*"), "*") }

// model reads litellm_params.model. A name without a provider is of the one that
// the price list knows it from, and Anthropic's otherwise.
func (r *reader) model(params *section, name string) (proxy.Provider, string) {
	path, n := join(params.path, "model"), params.take("model")
	if n == nil {
		r.fault(params.node, path, "is missing; it needs the form anthropic/MODEL or openai/MODEL")
		return proxy.Anthropic, ""
	}
	text, ok := r.scalar(n, path)
	if !ok {
		return proxy.Anthropic, ""
	}
	prefix, model, slash := strings.Cut(text, "/")
	provider := proxy.Provider(prefix)
	if !slash {
		provider, model = proxy.Anthropic, text
		if m, err := r.book.Model(text); err == nil && m.Provider == string(proxy.OpenAI) {
			provider = proxy.OpenAI
		}
	}
	_, served := upstreams[provider]
	modelPrefix, wild := strings.CutSuffix(model, "*")
	namePrefix, nameWild := strings.CutSuffix(name, "*")
	switch {
	case !served:
		r.fault(n, path, "%q: the provider %q is not served; anthropic and openai are", text, prefix)
		provider = proxy.Anthropic
	case model == "":
		r.fault(n, path, "%q needs the form anthropic/MODEL or openai/MODEL", text)
	case stars(model):
		r.fault(n, path, `%q: a "*" can only stand at the end`, text)
	case wild && !nameWild:
		r.fault(n, path, `%q: its "*" needs one at the end of model_name`, text)
	case wild && modelPrefix == "" && namePrefix != "" && !strings.HasSuffix(namePrefix, "/"):
		r.warn(n, path, `%q: the upstream is asked for what "*" stands for in %q, without %q; %s/%s is likely meant`, text, name, namePrefix, provider, name)
	}
	return provider, model
}

// key reads the real key, or finds the provider's.
func (r *reader) key(params *section, p proxy.Provider) string {
	path := join(params.path, "api_key")
	n := params.take("api_key")
	if n == nil {
		return r.needed(params.node, path, upstreams[p].key)
	}
	key, from := params.value("api_key")
	if key == "" && from == "" && n.Kind == yaml.ScalarNode {
		r.fault(n, path, "is empty")
	}
	return key
}

// base reads where requests go, or finds the provider's place.
func (r *reader) base(params *section, p proxy.Provider) string {
	path := join(params.path, "api_base")
	n := params.take("api_base")
	text, from := params.value("api_base")
	if n == nil {
		n = params.node
		if text, from = r.usual(n, p); text == "" {
			return upstreams[p].base
		}
	}
	if text == "" && from != "" {
		return "" // reported
	}
	base, err := trimBase(text)
	switch {
	case err != nil && from != "":
		r.fault(n, "", "%s: %v", from, err)
	case err != nil:
		r.fault(n, path, "%v", err)
	}
	return base
}

// usual is the base that a provider's variables name, and the variable.
func (r *reader) usual(n *yaml.Node, p proxy.Provider) (base, from string) {
	for _, name := range upstreams[p].bases {
		v, err := r.optional(name)
		if err != nil {
			r.fault(n, "", "%v", err)
		}
		if v != "" {
			return v, name
		}
	}
	return "", ""
}

// trimBase checks a base URL and takes off a slash, /v1 or /v1/messages at its
// end, which some write and some do not. Its error does not show the URL.
func trimBase(base string) (string, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("not an http or https URL")
	case u.User != nil:
		return "", errors.New("a URL with a name or password in it")
	case u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(base, "?#"):
		return "", errors.New("a URL with a query or fragment")
	}
	base = strings.TrimRight(base, "/")
	base = strings.TrimSuffix(base, "/messages")
	return strings.TrimRight(strings.TrimSuffix(base, "/v1"), "/"), nil
}
