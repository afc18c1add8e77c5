package config

import (
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// section is a mapping of the file that is being read.
type section struct {
	r    *reader
	path string
	node *yaml.Node
	keys []*yaml.Node // in order
	// values by key; a key of the mapping itself wins over a merged one.
	values map[string]*yaml.Node
	taken  map[string]bool
}

// section opens a mapping, with what it merges ("<<"). Anything else is a fault
// and opens as empty; so does nothing, without a fault.
func (r *reader) section(n *yaml.Node, path string) *section {
	n = target(n)
	s := &section{r: r, path: path, node: n, values: map[string]*yaml.Node{}, taken: map[string]bool{}}
	switch {
	case empty(n):
	case n.Kind != yaml.MappingNode:
		r.fault(n, path, "needs a mapping of settings")
	default:
		s.merge(n, map[*yaml.Node]bool{})
	}
	return s
}

// merge takes the keys of a mapping in; seen are the mappings that were merged.
func (s *section) merge(n *yaml.Node, seen map[*yaml.Node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	own := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if merges(key) {
			continue
		}
		name := target(key).Value
		if target(key).Kind != yaml.ScalarNode {
			s.r.fault(key, s.path, "a setting's name must be text")
			continue
		}
		if first := own[name]; first != nil {
			s.r.fault(key, join(s.path, name), "set twice, first in line %d", first.Line)
			continue
		}
		own[name] = key
		if s.values[name] == nil {
			s.values[name] = value
			s.keys = append(s.keys, key)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if merges(n.Content[i]) {
			s.mergeValue(n.Content[i+1], seen)
		}
	}
}

func merges(key *yaml.Node) bool { return key.Kind == yaml.ScalarNode && key.Tag == "!!merge" }

// mergeValue merges a mapping or a sequence of them.
func (s *section) mergeValue(value *yaml.Node, seen map[*yaml.Node]bool) {
	parts := []*yaml.Node{value}
	if target(value).Kind == yaml.SequenceNode {
		parts = target(value).Content
	}
	for _, part := range parts {
		if target(part).Kind != yaml.MappingNode {
			s.r.fault(part, join(s.path, "<<"), "only mappings can be merged")
			continue
		}
		s.merge(target(part), seen)
	}
}

// take returns the value of a setting; nil when it is not there or empty.
func (s *section) take(name string) *yaml.Node {
	s.taken[name] = true
	n := target(s.values[name])
	if empty(n) {
		return nil
	}
	return n
}

// sub opens a setting that is a section itself.
func (s *section) sub(name string) *section {
	n := s.take(name)
	if n == nil {
		n = &yaml.Node{Line: s.node.Line, Column: s.node.Column}
	}
	return s.r.section(n, join(s.path, name))
}

// list returns the items of a setting that is a sequence.
func (s *section) list(name string) []*yaml.Node {
	n := s.take(name)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		s.r.fault(n, join(s.path, name), "needs a list")
		return nil
	}
	return n.Content
}

// rest warns of every setting that was not taken: those that LiteLLM has and
// that do nothing here, and those that nobody knows.
func (s *section) rest(table settings) {
	for _, key := range s.keys {
		name := target(key).Value
		if _, ok := table.accepted[name]; ok || s.taken[name] {
			continue
		}
		why, exists := table.idle[name]
		switch {
		case exists && why == "":
			s.r.warn(key, join(s.path, name), "has no effect here")
		case exists:
			s.r.warn(key, join(s.path, name), "has no effect here: %s", why)
		default:
			s.r.warn(key, join(s.path, name), "unknown setting")
		}
	}
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// empty says that nothing is written where a value could be.
func empty(n *yaml.Node) bool {
	return n == nil || n.Kind == 0 || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.*/@:-]{1,100}$`)

// join extends a path by a name, quoted when it is no plain one.
func join(path, name string) string {
	if !plainName.MatchString(name) && name != "<<" {
		name = strconv.Quote(name[:min(len(name), 100)])
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
