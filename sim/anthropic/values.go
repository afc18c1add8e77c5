package anthropic

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set sets one value and reports whether name and value make sense.
func (sc *script) set(name, value string) bool {
	switch name {
	case "times":
		return setInt(&sc.times, value, 1, 1<<30)
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
	case "tool":
		sc.tool = value
		return value != ""
	case "input":
		return sc.setInput(value)
	case "say":
		sc.say = value
		return value != ""
	}
	return sc.setError(name, value)
}

// setError sets the faults that come in place of the answer.
func (f *faults) setError(name, value string) bool {
	switch name {
	case "error":
		return setInt(&f.status, value, 400, 599)
	case "retry_after":
		return setInt(&f.retryAfter, value, 1, 1<<30)
	case "should_retry":
		return setWord(&f.shouldRetry, value, "true", "false")
	case "body":
		return setWord(&f.body, value, "html", "empty")
	case "close":
		return setWord(&f.close, value, "before_headers")
	}
	return f.setBroken(name, value)
}

// setBroken sets the faults of the answer itself.
func (f *faults) setBroken(name, value string) bool {
	switch name {
	case "stream_error":
		return setAfter(&f.streamErrorAfter, value)
	case "type":
		f.errorType = value
		return value != ""
	case "cut":
		return setAfter(&f.cutAfter, value)
	case "stall":
		return setAfter(&f.stallAfter, value)
	case "stall_pings":
		return setAfter(&f.pingsAfter, value)
	case "stall_pings_ms":
		return setMillis(&f.pingsFor, value)
	case "malformed":
		return setAfter(&f.malformedAfter, value)
	case "encoding":
		return setWord(&f.encoding, value, "gzip", "br")
	case "huge":
		return setInt(&f.huge, value, 1, 1<<26)
	case "trickle":
		return setInt(&f.trickle, value, 1, 1<<20)
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
