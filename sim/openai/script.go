package openai

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// script says how one answer deviates from the usual one. See the package
// documentation for the names. Numbers are -1 where zero means something else
// than "not given".
type script struct {
	source string // the text it was read from, which times=N counts by

	status      int64
	times       int64 // zero: always
	retryAfter  int64
	shouldRetry string
	body        string
	errorType   string
	errorCode   string

	streamErrorAfter int64
	failAfter        int64
	cutAfter         int64
	stallAfter       int64

	outputTokens    int64 // zero: as generated
	reasoningTokens int64
	inputTokens     int64 // zero: as counted
	cachedTokens    int64
	delayMillis     int64
	firstByteMillis int64

	encoding string
	tool     string // empty: the first
	input    json.RawMessage
	say      string
}

var marker = regexp.MustCompile(`(?s)\[\[sim:(.*?)\]\]`)

// script reads the script of a request whose last user message is text.
func (s *Server) script(c *call, text string) (script, error) {
	header := c.r.Header.Get("x-sim-script")
	sc := script{
		source:           strings.Join([]string{s.opts.Script, header, text}, "\n"),
		streamErrorAfter: -1, failAfter: -1, cutAfter: -1, stallAfter: -1,
		reasoningTokens: -1, cachedTokens: -1, delayMillis: -1,
	}
	sources := []string{s.opts.Script, header}
	for _, found := range marker.FindAllStringSubmatch(text, -1) {
		sources = append(sources, found[1])
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
			return invalid("", "", "simulator: script %q has no value", name)
		}
		source = ""
		if name != "say" && name != "input" {
			value, source, _ = strings.Cut(value, ";")
			value = strings.TrimSpace(value)
		}
		if !sc.set(name, value) {
			return invalid("", "", "simulator: script %s=%s is unknown", name, value)
		}
	}
	return nil
}

// set sets one value and reports whether name and value make sense.
func (sc *script) set(name, value string) bool {
	if n, ok := sc.numbers()[name]; ok {
		return n.set(value)
	}
	if to, ok := sc.texts()[name]; ok {
		*to = value
		return value != ""
	}
	switch name {
	case "should_retry":
		return setWord(&sc.shouldRetry, value, "true", "false")
	case "body":
		return setWord(&sc.body, value, "html", "empty")
	case "encoding":
		return setWord(&sc.encoding, value, "gzip")
	case "input":
		return sc.setInput(value)
	}
	return false
}

// number is where a number of a script goes, and what it may be.
type number struct {
	to          *int64
	least, most int64
	after       bool // it is written after:N
}

const mostTokens = 1 << 30

func (sc *script) numbers() map[string]number {
	return map[string]number{
		"error":            {to: &sc.status, least: 400, most: 599},
		"times":            {to: &sc.times, least: 1, most: mostTokens},
		"retry_after":      {to: &sc.retryAfter, least: 1, most: mostTokens},
		"stream_error":     {to: &sc.streamErrorAfter, most: mostTokens, after: true},
		"fail":             {to: &sc.failAfter, most: mostTokens, after: true},
		"cut":              {to: &sc.cutAfter, most: mostTokens, after: true},
		"stall":            {to: &sc.stallAfter, most: mostTokens, after: true},
		"output_tokens":    {to: &sc.outputTokens, least: 1, most: 1 << 20},
		"reasoning_tokens": {to: &sc.reasoningTokens, most: 1 << 20},
		"input_tokens":     {to: &sc.inputTokens, least: 1, most: mostTokens},
		"cached_tokens":    {to: &sc.cachedTokens, most: mostTokens},
		"delay_ms":         {to: &sc.delayMillis, most: 3_600_000},
		"first_byte_ms":    {to: &sc.firstByteMillis, most: 3_600_000},
	}
}

func (n number) set(value string) bool {
	if n.after {
		count, found := strings.CutPrefix(value, "after:")
		if !found {
			return false
		}
		value = count
	}
	parsed, err := strconv.ParseInt(value, 10, 64)
	*n.to = parsed
	return err == nil && parsed >= n.least && parsed <= n.most
}

func (sc *script) texts() map[string]*string {
	return map[string]*string{"type": &sc.errorType, "code": &sc.errorCode, "tool": &sc.tool, "say": &sc.say}
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

func setWord(to *string, value string, allowed ...string) bool {
	*to = value
	return slices.Contains(allowed, value)
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// fault returns the HTTP error that the script of a request asks for, if it is
// due. It is counted per model and script, as agents ask several models at once.
func (s *Server) fault(t *turn) error {
	sc := t.script
	if sc.status == 0 {
		return nil
	}
	if sc.times > 0 && s.countRun(t.model.id+"\n"+sc.source) > sc.times {
		return nil
	}
	e := sc.failure(int(sc.status))
	e.RetryAfter, e.ShouldRetry, e.Body = sc.retryAfter, sc.shouldRetry, sc.body
	return e
}

// failure is an error that a script asks for.
func (sc *script) failure(status int) *apiError {
	e := &apiError{Status: status, Message: "simulated error", Type: sc.errorType, Code: sc.errorCode}
	if e.Code != "" {
		return e
	}
	switch {
	case status == 401:
		e.Code = "invalid_api_key"
	case status == 404:
		e.Code = "model_not_found"
	case status == 429:
		e.Code = "rate_limit_exceeded"
	case status >= 500:
		e.Code = "server_error"
	}
	return e
}

// countRun returns how often it was called with source.
func (s *Server) countRun(source string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[source]++
	return s.runs[source]
}
