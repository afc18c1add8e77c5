package config

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// LiteLLM's defaults.
const (
	defaultAllowedFails = 3
	defaultCooldown     = 5 * time.Second
)

// file reads the whole configuration.
func (r *reader) file(s *section) proxy.Routing {
	routing := proxy.Routing{Deployments: r.models(s)}
	router, litellm := s.sub("router_settings"), s.sub("litellm_settings")
	n := newNames(routing.Deployments)
	routing.Aliases = r.aliases(router, n)
	r.spread(&routing, router, litellm)
	routing.Fallbacks = r.fallbacks(router, n)
	for name, to := range r.fallbacks(litellm, n) {
		if _, own := routing.Fallbacks[name]; !own && !decides(router, name) {
			routing.Fallbacks[name] = to
		}
	}
	r.strategy(router)
	router.rest(routerSettings)
	litellm.rest(litellmSettings)
	s.sub("general_settings").rest(generalSettings)
	s.rest(fileSettings)
	return routing
}

// decides says whether router_settings has the say on a name's fallbacks: where it
// has a setting, litellm_settings' one does not count.
func decides(router *section, name string) bool {
	if name == everyName {
		return router.take("default_fallbacks") != nil
	}
	return router.take("fallbacks") != nil
}

// spread reads retries, pauses and bounds. As in LiteLLM, litellm_settings
// counts where router_settings says nothing.
func (r *reader) spread(to *proxy.Routing, router, litellm *section) {
	to.NumRetries = int(router.whole("num_retries", litellm.whole("num_retries", 0, 0, maxRetries), 0, maxRetries))
	to.AllowedFails = int(router.whole("allowed_fails", litellm.whole("allowed_fails", defaultAllowedFails, 0, maxCount), 0, maxCount))
	to.RetryAfter = router.seconds("retry_after", 0, 0)
	to.Timeout = router.seconds("timeout", litellm.seconds("request_timeout", 0, 1), 1)
	to.StreamTimeout = router.seconds("stream_timeout", 0, 1)
	to.Cooldown = router.seconds("cooldown_time", defaultCooldown, 0)
}

const simpleShuffle = "simple-shuffle"

func (r *reader) strategy(router *section) {
	if v := router.text("routing_strategy"); v != "" && v != simpleShuffle {
		r.warn(router.take("routing_strategy"), join(router.path, "routing_strategy"), "%q has no effect here: %s is what happens, and a session stays on its deployment", v, simpleShuffle)
	}
}

// aliases reads model_group_alias: a name, or {model: NAME}. An alias of an alias
// stands for the name at the end.
func (r *reader) aliases(router *section, n *knownNames) map[string]string {
	s := router.sub("model_group_alias")
	nodes := map[string]*yaml.Node{}
	for _, key := range s.keys {
		alias := target(key).Value
		v := s.take(alias)
		if v != nil && v.Kind == yaml.MappingNode {
			of := r.section(v, join(s.path, alias))
			if hidden := of.text("hidden"); hidden == "true" {
				r.warn(of.take("hidden"), join(of.path, "hidden"), "has no effect here: aliases are never listed")
			}
			v = of.take("model")
			of.rest(settings{})
		}
		if v == nil {
			r.fault(key, join(s.path, alias), "needs a model's name")
			continue
		}
		to, ok := r.scalar(v, join(s.path, alias))
		if !ok {
			continue
		}
		nodes[alias], n.aliases[alias] = v, to
		if n.exact[alias] {
			r.warn(key, join(s.path, alias), "hides the model_name %q", alias)
		}
	}
	return r.resolve(s, nodes, n)
}

// resolve follows aliases to their ends.
func (r *reader) resolve(s *section, nodes map[string]*yaml.Node, n *knownNames) map[string]string {
	ends := map[string]string{}
	for _, key := range s.keys {
		alias := target(key).Value
		node, ok := nodes[alias]
		if !ok {
			continue
		}
		end, loops := n.end(alias)
		switch {
		case loops:
			r.fault(node, join(s.path, alias), "the aliases go in a circle")
		case !n.served(end):
			r.fault(node, join(s.path, alias), "%q is no model_name", end)
		default:
			ends[alias] = end
		}
	}
	return ends
}

// everyName is the key of the fallbacks of names that have none of their own.
const everyName = "*"

// fallbacks reads fallbacks and default_fallbacks.
func (r *reader) fallbacks(s *section, n *knownNames) map[string][]string {
	out := map[string][]string{}
	for _, item := range s.list("fallbacks") {
		of := r.section(item, join(s.path, "fallbacks"))
		for _, key := range of.keys {
			name := target(key).Value
			path := join(of.path, name)
			switch _, twice := out[name]; {
			case name != everyName && !n.known(name):
				r.fault(key, path, "%q is no model_name", name)
			case twice:
				r.fault(key, path, "has fallbacks already")
			}
			out[name] = r.targets(of.take(name), key, path, name, n)
		}
	}
	if list := s.take("default_fallbacks"); list != nil {
		path := join(s.path, "default_fallbacks")
		if _, twice := out[everyName]; twice {
			r.fault(list, path, `fallbacks has an entry for "*" already`)
		}
		out[everyName] = r.targets(list, list, path, "", n)
	}
	return out
}

// targets reads the names that a name falls back to: a list, or one name.
func (r *reader) targets(list, at *yaml.Node, path, name string, n *knownNames) []string {
	items := []*yaml.Node{list}
	switch {
	case empty(list):
		r.fault(at, path, "needs a list of names")
		return nil
	case list.Kind == yaml.SequenceNode:
		items = list.Content
	}
	var out []string
	for _, item := range items {
		to, ok := r.scalar(item, path)
		switch {
		case !ok: // reported
		case to == name:
			r.warn(item, path, "a name that falls back to itself gains nothing by it")
		case !n.known(to):
			r.fault(item, path, "%q is no model_name", to)
		default:
			out = append(out, to)
		}
	}
	return out
}
