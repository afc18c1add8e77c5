package anthropic

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// script says how one answer deviates from the usual one. See the package
// documentation for the markers. The counts after which something happens are -1
// when it does not.
type script struct {
	source string // the text it was read from, which times=N counts by

	status      int
	times       int // zero: always
	retryAfter  int
	shouldRetry string
	body        string

	streamErrorAfter int
	errorType        string
	cutAfter         int
	stallAfter       int

	outputTokens int64 // zero: as generated
	inputTokens  int64 // zero: as counted
	webSearches  int64
	delay        time.Duration // negative: Options.ChunkDelay
	firstByte    time.Duration

	tool  string // empty: the first
	input json.RawMessage
	say   string
}

var marker = regexp.MustCompile(`(?s)\[\[sim:(.*?)\]\]`)

// parseScripts reads the script of a request from its header and from the text
// of its last user message.
func parseScripts(header string, last []block) (script, error) {
	sc := script{streamErrorAfter: -1, cutAfter: -1, stallAfter: -1, webSearches: 1, delay: -1, errorType: "overloaded_error"}
	sources := []string{header}
	sc.source = header
	for _, b := range last {
		if b.Type != "text" {
			continue
		}
		sc.source += "\n" + b.Text
		for _, found := range marker.FindAllStringSubmatch(b.Text, -1) {
			sources = append(sources, found[1])
		}
	}
	for _, source := range sources {
		if err := sc.apply(source); err != nil {
			return script{}, err
		}
	}
	return sc, nil
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

// set sets one value and reports whether name and value make sense.
func (sc *script) set(name, value string) bool {
	switch name {
	case "error":
		return setInt(&sc.status, value, 400, 599)
	case "times":
		return setInt(&sc.times, value, 1, 1<<30)
	case "retry_after":
		return setInt(&sc.retryAfter, value, 1, 1<<30)
	case "should_retry":
		return setWord(&sc.shouldRetry, value, "true", "false")
	case "body":
		return setWord(&sc.body, value, "html", "empty")
	case "stream_error":
		return setAfter(&sc.streamErrorAfter, value)
	case "type":
		sc.errorType = value
		return value != ""
	case "cut":
		return setAfter(&sc.cutAfter, value)
	case "stall":
		return setAfter(&sc.stallAfter, value)
	case "tool":
		sc.tool = value
		return value != ""
	case "input":
		return sc.setInput(value)
	case "say":
		sc.say = value
		return value != ""
	}
	return sc.setAmount(name, value)
}

// setAmount sets the values that are counts of tokens or times.
func (sc *script) setAmount(name, value string) bool {
	switch name {
	case "output_tokens":
		return setInt(&sc.outputTokens, value, 1, 1<<20)
	case "input_tokens":
		return setInt(&sc.inputTokens, value, 1, 1<<30)
	case "web_searches":
		return setInt(&sc.webSearches, value, 0, 100)
	case "delay_ms":
		return setMillis(&sc.delay, value)
	case "first_byte_ms":
		return setMillis(&sc.firstByte, value)
	}
	return false
}

// setInput takes a JSON object. Agents that quote their prompt, as OpenCode
// does, escape the quotes in it.
func (sc *script) setInput(value string) bool {
	for _, text := range []string{value, strings.ReplaceAll(value, `\"`, `"`)} {
		if strings.HasPrefix(text, "{") && json.Valid([]byte(text)) {
			sc.input = json.RawMessage(text)
			return true
		}
	}
	return false
}

func setInt[T int | int64](to *T, value string, least, most T) bool {
	n, err := strconv.ParseInt(value, 10, 32)
	*to = T(n)
	return err == nil && *to >= least && *to <= most
}

func setMillis(to *time.Duration, value string) bool {
	var millis int
	ok := setInt(&millis, value, 0, 3_600_000)
	*to = time.Duration(millis) * time.Millisecond
	return ok
}

func setAfter(to *int, value string) bool {
	count, found := strings.CutPrefix(value, "after:")
	return found && setInt(to, count, 0, 1<<30)
}

func setWord(to *string, value string, allowed ...string) bool {
	*to = value
	return slices.Contains(allowed, value)
}

// fault returns the HTTP error that the script asks for, if it is due. It is
// counted per model and script, as agents ask several models at once.
func (s *Server) fault(p prompt) error {
	sc := p.script
	if sc.status == 0 {
		return nil
	}
	if sc.times > 0 && s.countRun(p.model.id+"\n"+sc.source) > sc.times {
		return nil
	}
	return &apiError{
		Status: sc.status, Message: "simulated error", RetryAfter: sc.retryAfter,
		ShouldRetry: sc.shouldRetry, Body: sc.body,
	}
}

// countRun returns how often it was called with source.
func (s *Server) countRun(source string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[source]++
	return s.runs[source]
}
