package config

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// text reads a setting that is text; a number is text too. It is empty when it is
// not set.
func (s *section) text(name string) string {
	n := s.take(name)
	if n == nil {
		return ""
	}
	v, _ := s.r.scalar(n, join(s.path, name))
	return v
}

// scalar is a value's text, without spaces at its ends; anything else is a fault.
func (r *reader) scalar(n *yaml.Node, path string) (string, bool) {
	n = target(n)
	if n.Kind != yaml.ScalarNode || empty(n) {
		r.fault(n, path, "needs text or a number")
		return "", false
	}
	return strings.TrimSpace(n.Value), true
}

// whole reads a whole number from lowest to highest; def when it is not set.
func (s *section) whole(name string, def, lowest, highest int64) int64 {
	n, path := s.take(name), join(s.path, name)
	if n == nil {
		return def
	}
	text, ok := s.r.scalar(n, path)
	if !ok {
		return def
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < lowest || v > highest {
		s.r.fault(n, path, "%s is not a whole number from %d to %d", shown(n), lowest, highest)
		return def
	}
	return v
}

// longest bounds every duration.
const longest = 366 * 24 * time.Hour

// seconds reads a duration: a number of seconds, with a fraction or not, or a
// text such as "30s". least is the smallest that makes sense; def stands for one
// that is not set.
func (s *section) seconds(name string, def, least time.Duration) time.Duration {
	n, path := s.take(name), join(s.path, name)
	if n == nil {
		return def
	}
	text, ok := s.r.scalar(n, path)
	if !ok {
		return def
	}
	nanos, err := money.ParseDecimal(text, 9)
	d := time.Duration(nanos)
	if err != nil {
		d, err = time.ParseDuration(text)
	}
	switch {
	case err != nil:
		s.r.fault(n, path, `%s is not a number of seconds or a duration such as "30s"`, shown(n))
	case d < 0:
		s.r.fault(n, path, "%s is negative", shown(n))
	case d < least:
		s.r.fault(n, path, "must be more than 0")
	case d > longest:
		s.r.fault(n, path, "%s is more than a year", shown(n))
	default:
		return d
	}
	return def
}

// shown is a value that is no secret, for an error.
func shown(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return "this"
	}
	return strconv.Quote(n.Value[:min(len(n.Value), 100)])
}

// variable is a name that can be looked up.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,200}$`)

// value reads a setting that may be "os.environ/NAME"; from is the variable that
// it came from, if any: one that could not be read, which is reported, is empty.
func (s *section) value(setting string) (value, from string) {
	n := s.take(setting)
	if n == nil {
		return "", ""
	}
	path := join(s.path, setting)
	text, _ := s.r.scalar(n, path)
	name, ok := strings.CutPrefix(text, "os.environ/")
	if !ok {
		return text, ""
	}
	return s.r.needed(n, path, name), cmp.Or(name, text)
}

// needed looks a variable up that must be set. It is reported where it is first
// needed.
func (r *reader) needed(n *yaml.Node, path, name string) string {
	if !variable.MatchString(name) {
		r.fault(n, path, "os.environ/ needs the name of a variable after it")
		return ""
	}
	_, before := r.resolved[name]
	v, err := r.optional(name)
	switch {
	case before:
	case err != nil:
		r.fault(n, "", "%v", err)
	case v == "":
		r.fault(n, "", "%s: not set; %s needs it", name, path)
	}
	return v
}

// optional looks a variable up, once.
func (r *reader) optional(name string) (string, error) {
	if v, ok := r.resolved[name]; ok {
		return v, nil
	}
	v, err := r.lookup(name)
	if err != nil {
		v, err = "", fmt.Errorf("%s: %w", name, err)
	}
	v = strings.TrimSpace(v)
	r.resolved[name] = v
	return v, err
}
