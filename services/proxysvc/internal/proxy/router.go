package proxy

import (
	"hash/fnv"
	"slices"
	"strings"
)

// Router finds the deployment for a model name. It never changes.
type Router struct {
	exact     map[string][]Deployment
	wildcards []wildcard // longest prefix first
	names     []string   // in the order of the configuration
}

type wildcard struct {
	prefix      string
	deployments []Deployment
}

// NewRouter makes a router over deployments in their order.
func NewRouter(deployments []Deployment) *Router {
	r := &Router{exact: map[string][]Deployment{}}
	for _, d := range deployments {
		prefix, wild := strings.CutSuffix(d.ModelName, "*")
		if !wild {
			if r.exact[d.ModelName] == nil {
				r.names = append(r.names, d.ModelName)
			}
			r.exact[d.ModelName] = append(r.exact[d.ModelName], d)
			continue
		}
		i := slices.IndexFunc(r.wildcards, func(w wildcard) bool { return w.prefix == prefix })
		if i < 0 {
			r.wildcards = append(r.wildcards, wildcard{prefix: prefix})
			i = len(r.wildcards) - 1
		}
		r.wildcards[i].deployments = append(r.wildcards[i].deployments, d)
	}
	slices.SortStableFunc(r.wildcards, func(a, b wildcard) int { return len(b.prefix) - len(a.prefix) })
	return r
}

// Route finds the deployment that serves a model for a session. The bare name
// and the one with a provider prefix ("anthropic/") are the same; an exact name
// wins over a wildcard. A session stays on one deployment of several, so that
// its prompt cache stays warm.
func (r *Router) Route(model, session string) (Deployment, bool) {
	bare := strings.TrimPrefix(model, providerPrefix)
	for _, name := range []string{model, bare, providerPrefix + bare} {
		if ds := r.exact[name]; len(ds) > 0 {
			return pick(ds, session), true
		}
	}
	for _, w := range r.wildcards {
		for _, name := range []string{model, bare} {
			if rest, ok := strings.CutPrefix(name, w.prefix); ok {
				return pick(w.deployments, session).matched(rest), true
			}
		}
	}
	return Deployment{}, false
}

const providerPrefix = "anthropic/"

// matched puts what a wildcard stood for into the deployment's model.
func (d Deployment) matched(rest string) Deployment {
	if prefix, ok := strings.CutSuffix(d.Model, "*"); ok {
		d.Model = strings.TrimPrefix(prefix+rest, providerPrefix)
	}
	return d
}

func pick(ds []Deployment, session string) Deployment {
	if len(ds) == 1 {
		return ds[0]
	}
	h := fnv.New32a()
	h.Write([]byte(session))             // a hash never fails
	return ds[h.Sum32()%uint32(len(ds))] // a handful
}

// Names lists the names that clients may send, without wildcards.
func (r *Router) Names() []string { return r.names }

// mayUse says whether a key's lists allow a model. An empty list allows all;
// so do LiteLLM's words for that.
func (k *Key) mayUse(model string) bool {
	return allows(k.Models, model) && allows(k.TeamModels, model)
}

func allows(list []string, model string) bool {
	if len(list) == 0 {
		return true
	}
	bare := strings.TrimPrefix(model, providerPrefix)
	for _, allowed := range list {
		if allowed == "all-team-models" || allowed == "all-proxy-models" {
			return true
		}
		prefix, wild := strings.CutSuffix(strings.TrimPrefix(allowed, providerPrefix), "*")
		if wild && strings.HasPrefix(bare, prefix) || !wild && bare == prefix {
			return true
		}
	}
	return false
}
