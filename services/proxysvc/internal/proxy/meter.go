package proxy

import (
	"bytes"
	"encoding/json"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// verdict says what becomes of an event of a stream.
type verdict int

const (
	pass     verdict = iota
	last             // ends the answer: nothing of use follows it
	withhold         // was asked for by us, not by the client
)

// meter reads what an answer used while it passes. Usage is what the upstream
// reports; where a stream ends before that, it is estimated from what was
// received.
type meter interface {
	// Event meters one server-sent event.
	Event(name, data []byte) verdict
	// Piece meters a piece of an event that is too long to be looked at.
	Piece(size int)
	// Body meters a whole answer.
	Body(body []byte)
	// Answer is what is known of the answer so far.
	Answer() *answer
}

// answer is what a meter has found out.
type answer struct {
	MessageID  string
	StopReason string
	ErrorType  string // of an error event
	Complete   bool   // the answer arrived whole
	usage      pricing.Usage
	started    bool  // the upstream's count of the input arrived
	counted    bool  // so did its count of the output
	unmetered  int64 // bytes of output since the upstream's last count
	inputGuess int64 // tokens of the prompt, told from its bytes
}

// bytesPerToken turns output that was received but never counted into tokens.
// English text has about four bytes a token, code and other languages fewer.
const bytesPerToken = 3

// Usage is what was used so far; estimated is true when some of it is not the
// upstream's own count.
func (a *answer) Usage() (u pricing.Usage, estimated bool) {
	u = a.usage
	if a.unmetered > 0 {
		u.OutputTokens += (a.unmetered + bytesPerToken - 1) / bytesPerToken
		if !a.started {
			u.InputTokens = a.inputGuess
		}
	}
	return u, a.unmetered > 0 || a.started && !a.counted
}

// Piece implements meter.
func (a *answer) Piece(size int) { a.unmetered += int64(size) }

// Answer implements meter.
func (a *answer) Answer() *answer { return a }

// messagesMeter meters Anthropic's answers. The totals of message_delta are
// cumulative and replace those of message_start, field by field.
type messagesMeter struct{ answer }

// Event implements meter.
func (m *messagesMeter) Event(name, data []byte) verdict {
	switch string(name) {
	case "content_block_delta":
		m.unmetered += deltaLen(data)
	case "message_start":
		if e, ok := readStart(data); ok {
			m.take(e)
		}
	case "message_delta":
		if e, ok := readDelta(data); ok {
			m.take(e)
			m.counted = m.counted || e.usage.outputTokens.is
		}
	case "message_stop":
		m.Complete = true
		return last
	case "error":
		m.ErrorType = errorType(data)
		return last
	}
	return pass
}

// Body implements meter.
func (m *messagesMeter) Body(body []byte) {
	if e, ok := readMessage(body); ok {
		m.take(e)
		m.Complete, m.counted = m.started, m.started
	}
}

func (m *messagesMeter) take(e message) {
	setText(&m.MessageID, e.id)
	setText(&m.StopReason, e.stopReason)
	u := e.usage
	if u.inputTokens.is {
		m.started = true
	}
	if u.outputTokens.is {
		m.unmetered = 0 // the count includes all that was sent until now
	}
	u.inputTokens.set(&m.usage.InputTokens)
	u.outputTokens.set(&m.usage.OutputTokens)
	u.cacheRead.set(&m.usage.CacheReadTokens)
	u.cacheWrite5m.set(&m.usage.CacheWrite5mTokens)
	u.cacheWrite1h.set(&m.usage.CacheWrite1hTokens)
	if total := u.cacheCreation; total.is {
		// What the split does not name was written for five minutes.
		m.usage.CacheWrite5mTokens = max(0, total.n-m.usage.CacheWrite1hTokens)
	}
	u.webSearches.set(&m.usage.WebSearchRequests)
	u.serviceTier.set(&m.usage.ServiceTier)
	u.inferenceGeo.set(&m.usage.InferenceGeo)
	u.speed.set(&m.usage.Speed)
}

// setText sets what is known.
func setText(to *string, text string) {
	if text != "" {
		*to = text
	}
}

// errorType reads the type out of an error body: Anthropic's and OpenAI's agree
// on its place.
func errorType(data []byte) string {
	var e struct {
		Error struct {
			Type string `json:"type"`
		} `json:"error"`
	}
	if json.Unmarshal(data, &e) != nil || e.Error.Type == "" {
		return "unknown_error"
	}
	return e.Error.Type
}

// deltaFields are the fields of a delta that hold generated output.
var deltaFields = [][]byte{[]byte(`"text"`), []byte(`"thinking"`), []byte(`"partial_json"`)}

// deltaLen is the length of the output that a delta carries. It decodes
// nothing: an escape counts as one byte.
func deltaLen(data []byte) int64 {
	for _, field := range deltaFields {
		if n, ok := fieldLen(data, field); ok {
			return n
		}
	}
	return 0
}

// fieldLen is the length of the string that a quoted field name introduces.
func fieldLen(data, field []byte) (int64, bool) {
	for rest := data; ; {
		i := bytes.Index(rest, field)
		if i < 0 {
			return 0, false
		}
		rest = bytes.TrimLeft(rest[i+len(field):], " ")
		if len(rest) > 0 && rest[0] == ':' {
			return stringLen(bytes.TrimLeft(rest[1:], " ")), true
		}
	}
}

func stringLen(b []byte) int64 {
	n := int64(0)
	for i := 1; i < len(b) && b[i] != '"'; i++ {
		if b[i] == '\\' {
			if i++; i < len(b) && b[i] == 'u' {
				i += 4
			}
		}
		n++
	}
	return n
}
