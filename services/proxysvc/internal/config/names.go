package config

import (
	"strings"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// knownNames are the names that clients may send.
type knownNames struct {
	exact     map[string]bool
	wildcards []string // without their "*"
	aliases   map[string]string
}

func newNames(ds []proxy.Deployment) *knownNames {
	n := &knownNames{exact: map[string]bool{}, aliases: map[string]string{}}
	for _, d := range ds {
		if prefix, wild := strings.CutSuffix(d.ModelName, "*"); wild {
			n.wildcards = append(n.wildcards, prefix)
		} else {
			n.exact[d.ModelName] = true
		}
	}
	return n
}

// known says whether a name is served, by an alias too.
func (n *knownNames) known(name string) bool {
	end, loops := n.end(name)
	return !loops && n.served(end)
}

// served says whether a name has a deployment. A name with its provider in front
// and the bare one are the same.
func (n *knownNames) served(name string) bool {
	bare := strings.TrimPrefix(strings.TrimPrefix(name, "anthropic/"), "openai/")
	for _, form := range []string{name, bare, "anthropic/" + bare, "openai/" + bare} {
		if n.exact[form] {
			return true
		}
		for _, prefix := range n.wildcards {
			if strings.HasPrefix(form, prefix) {
				return true
			}
		}
	}
	return false
}

// end follows aliases from a name to the last one.
func (n *knownNames) end(name string) (end string, loops bool) {
	seen := map[string]bool{}
	for {
		next, ok := n.aliases[name]
		switch {
		case !ok:
			return name, false
		case seen[name]:
			return name, true
		}
		seen[name] = true
		name = next
	}
}
