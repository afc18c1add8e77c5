package anthropic

import (
	"encoding/json"
	"regexp"
	"strings"
	"time"
)

// script says how one answer deviates from the usual one. See the package
// documentation for the markers.
type script struct {
	faults
	times int // zero: always; of the scope that is being read

	outputTokens int64 // zero: as generated
	inputTokens  int64 // zero: as counted
	webSearches  int64
	delay        time.Duration // negative: Options.ChunkDelay
	firstByte    time.Duration

	tool  string // empty: the first
	input json.RawMessage
	say   string
}

// scope is where a script comes from. times=N counts the requests of its scope
// and ends the faults of its scope alone.
type scope struct {
	key     string // what times=N counts by
	sources []string
}

var marker = regexp.MustCompile(`(?s)\[\[sim:(.*?)\]\]`)

// SetScript replaces Options.Script, for the requests that arrive from now on.
// What is wrong in it is told to them, as a 400. It may be called at any time;
// times=N counts anew.
func (s *Server) SetScript(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = text
	delete(s.runs, serverScope(text).key)
}

func serverScope(text string) scope { return scope{"server\n" + text, []string{text}} }

// readScript reads the script of a request: of the server, of the model, then of
// the header and the last user message. What comes later wins. A route that
// takes no message has no prompt.
func (s *Server) readScript(header string, p *prompt) (script, error) {
	s.mu.Lock()
	scopes := []scope{serverScope(s.script)}
	s.mu.Unlock()
	if p == nil {
		scopes = append(scopes, scope{"header\n" + header, []string{header}})
	} else {
		text := s.opts.Models[p.Model]
		scopes = append(scopes, scope{"model\n" + p.Model + "\n" + text, []string{text}}, p.scope(header))
	}
	sc := script{faults: noFaults(), webSearches: 1, delay: -1}
	for _, from := range scopes {
		if err := s.read(&sc, from); err != nil {
			return script{}, err
		}
	}
	return sc, nil
}

// scope is that of the header and the last user message. It is counted per
// model, as agents ask several models at once.
func (p *prompt) scope(header string) scope {
	from := scope{"request\n" + p.model.id + "\n" + header, []string{header}}
	for _, b := range p.last {
		if b.Type != "text" {
			continue
		}
		from.key += "\n" + b.Text
		for _, found := range marker.FindAllStringSubmatch(b.Text, -1) {
			from.sources = append(from.sources, found[1])
		}
	}
	return from
}

// read adds the scripts of one scope to sc, without their faults when they have
// happened often enough.
func (s *Server) read(sc *script, from scope) error {
	before := sc.faults
	sc.times = 0
	for _, source := range from.sources {
		if err := sc.apply(source); err != nil {
			return err
		}
	}
	if sc.times > 0 && s.countRun(from.key) > sc.times {
		sc.faults = before
	}
	return nil
}

// countRun returns how often it was called with key.
func (s *Server) countRun(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[key]++
	return s.runs[key]
}

// apply reads NAME=VALUE;NAME=VALUE. say and input take all that follows.
func (sc *script) apply(source string) error {
	for source != "" {
		name, value, found := strings.Cut(source, "=")
		name = strings.TrimSpace(name)
		if !found {
			return invalid("simulator: script %q has no value", name)
		}
		source = ""
		if name != "say" && name != "input" {
			value, source, _ = strings.Cut(value, ";")
			value = strings.TrimSpace(value)
		}
		if !sc.set(name, value) {
			return invalid("simulator: script %s=%s is unknown", name, value)
		}
	}
	return nil
}
