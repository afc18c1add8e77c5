package proxy

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// message is what an answer says that is metered. It is read as encoding/json would,
// but that names are not compared by folding, at a fifth of the cost: most of an
// answer is text that nobody looks at.
type message struct {
	id, stopReason string
	usage          usage
}

// usage is Anthropic's usage object; what is absent changes nothing.
type usage struct {
	inputTokens, outputTokens, cacheRead      count
	cacheCreation, cacheWrite5m, cacheWrite1h count
	webSearches                               count
	serviceTier, inferenceGeo, speed          word
}

// count is a number that may be absent.
type count struct {
	n  int64
	is bool
}

// word is a text that may be absent.
type word struct {
	text string
	is   bool
}

func (c count) set(to *int64) {
	if c.is {
		*to = c.n
	}
}

func (t word) set(to *string) {
	if t.is {
		*to = t.text
	}
}

// readMessage reads a whole answer. Not ok: it is no message.
func readMessage(body []byte) (m message, ok bool) {
	ok = readObject(body, m.field)
	return m, ok
}

// readStart reads the data of message_start.
func readStart(data []byte) (m message, ok bool) {
	ok = readObject(data, func(name, value []byte) bool {
		return string(name) != "message" || readFields(value, m.field)
	})
	return m, ok
}

// readDelta reads the data of message_delta.
func readDelta(data []byte) (m message, ok bool) {
	ok = readObject(data, func(name, value []byte) bool {
		switch string(name) {
		case "delta":
			return readFields(value, func(name, value []byte) bool {
				return string(name) != "stop_reason" || readText(value, &m.stopReason)
			})
		case "usage":
			return m.usage.read(value)
		}
		return true
	})
	return m, ok
}

// readObject calls f for each field of a text that should be an object, as it is gone
// over. Not ok: it is no valid JSON, or neither an object nor null, or f said so of a
// field.
func readObject(text []byte, f func(name, value []byte) bool) bool {
	w, ok := walk{b: text, checked: len(text)}, true
	from := w.space(0)
	var to int
	if from < len(text) && text[from] == '{' {
		to = w.object(from, 0, func(quoted span, i int) int {
			end := w.value(i, 1)
			ok = end > 0 && f(fieldName(text[quoted.from:quoted.to]), text[i:end]) && ok
			return end
		})
	} else {
		to = w.value(from, 0)
		ok = string(text[from:max(from, to)]) == "null"
	}
	return ok && to > 0 && w.space(to) == len(text)
}

// field reads a field of a message.
func (m *message) field(name, value []byte) bool {
	switch string(name) {
	case "id":
		return readText(value, &m.id)
	case "stop_reason":
		return readText(value, &m.stopReason)
	case "usage":
		return m.usage.read(value)
	}
	return true
}

func (u *usage) read(value []byte) bool {
	return readFields(value, func(name, value []byte) bool {
		switch string(name) {
		case "input_tokens":
			return u.inputTokens.read(value)
		case "output_tokens":
			return u.outputTokens.read(value)
		case "cache_read_input_tokens":
			return u.cacheRead.read(value)
		case "cache_creation_input_tokens":
			return u.cacheCreation.read(value)
		case "cache_creation":
			if string(value) == "null" {
				u.cacheWrite5m, u.cacheWrite1h = count{}, count{}
			}
			return readFields(value, func(name, value []byte) bool {
				switch string(name) {
				case "ephemeral_5m_input_tokens":
					return u.cacheWrite5m.read(value)
				case "ephemeral_1h_input_tokens":
					return u.cacheWrite1h.read(value)
				}
				return true
			})
		case "server_tool_use":
			if string(value) == "null" {
				u.webSearches = count{}
			}
			return readFields(value, func(name, value []byte) bool {
				return string(name) != "web_search_requests" || u.webSearches.read(value)
			})
		case "service_tier":
			return u.serviceTier.read(value)
		case "inference_geo":
			return u.inferenceGeo.read(value)
		case "speed":
			return u.speed.read(value)
		}
		return true
	})
}

// readFields calls f for each field of a value that should be an object. Not ok: it
// is none, nor null, or f said so of a field.
func readFields(value []byte, f func(name, value []byte) bool) (ok bool) {
	if value[0] != '{' {
		return string(value) == "null"
	}
	ok = true
	eachField(value, func(name []byte, at span) { ok = f(name, value[at.from:at.to]) && ok })
	return ok
}

// readText reads a value that should be a string; null changes nothing.
func readText(value []byte, to *string) (ok bool) {
	if value[0] != '"' {
		return string(value) == "null"
	}
	if bytes.IndexByte(value, '\\') < 0 {
		*to = wellKnown(value[1 : len(value)-1])
		return true
	}
	var text string // not *to: what json is given becomes an object of its own
	if json.Unmarshal(value, &text) != nil {
		return false
	}
	*to = text
	return true
}

// wellKnown makes a string of a text; those that most answers have are no new ones.
func wellKnown(text []byte) string {
	for _, known := range [...]string{"end_turn", "tool_use", "standard"} {
		if string(text) == known {
			return known
		}
	}
	return string(text)
}

func (c *count) read(value []byte) (ok bool) {
	if string(value) == "null" {
		*c = count{}
		return true
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err == nil {
		*c = count{n, true}
	}
	return err == nil
}

func (t *word) read(value []byte) (ok bool) {
	if string(value) == "null" {
		*t = word{}
		return true
	}
	t.is = true
	return readText(value, &t.text)
}
