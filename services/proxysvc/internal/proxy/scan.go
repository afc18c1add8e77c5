package proxy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
)

// Request is what the proxy needs to know of a body.
type Request struct {
	Model       string
	Stream      bool
	MaxTokens   int64  // 0: not given
	Answers     int64  // OpenAI's n; 0: not given
	Fast        bool   // asks for fast mode
	ServiceTier string // asked for
	ClientUser  string // metadata.user_id; empty: not given
	// Previous is the answer that the request continues, which only its own
	// deployment knows; empty: none.
	Previous string
	// Held says that the upstream keeps the conversation, so that a later request
	// may continue it.
	Held bool
	// HideUsage says that the client of a stream did not ask for its usage.
	HideUsage bool

	api API
	// modelAt and optionsAt are where the values of model and stream_options stand
	// in the body; 0, 0: not given.
	modelAt, optionsAt span
	weight             weight
	marks              marks
}

// span is a part of the body.
type span struct{ from, to int }

// scanned are the fields that the proxy reads, by API.
var scanned = map[API][]string{
	Messages:        {"model", "stream", "max_tokens", "speed", "service_tier", "thread", "metadata"},
	ChatCompletions: {"model", "stream", "max_tokens", "max_completion_tokens", "n", "service_tier", "stream_options"},
	Responses:       {"model", "stream", "max_output_tokens", "service_tier", "previous_response_id", "store"},
}

// Scan finds the fields at the top level of a body without decoding the rest, and what
// tells its worst case. The body must be one JSON object, valid but for what stands far
// in a string (see checked), and may not name a field twice that the proxy reads: the
// upstream could take the other one.
func Scan(api API, body []byte) (Request, *Error) {
	r := Request{api: api, Held: api == Responses}
	w := walk{b: body, checked: checked}
	from := w.space(0)
	if from == len(body) {
		return r, errBody("the request body is empty; a JSON object is needed")
	}
	if body[from] != '{' {
		if to := w.value(from, 0); to == 0 || w.space(to) < len(body) {
			return r, errNoJSON()
		}
		return r, errBody("the request body must be a JSON object")
	}
	fields := scanned[api]
	var seen [8]bool // no API has more of them
	var bad *Error   // the first one
	weight := weight{text: int64(len(body))}
	to := w.object(from, 0, func(quoted span, i int) int {
		name := fieldName(body[quoted.from:quoted.to])
		switch string(name) {
		case "messages", "input", "system":
			return w.content(i, 1, 0, &weight)
		}
		end := w.value(i, 1)
		field := slices.IndexFunc(fields, func(field string) bool { return field == string(name) })
		switch {
		case field < 0 || end == 0 || bad != nil:
		case seen[field]:
			bad = errBody(fields[field] + ": given twice")
		case !validJSON(body[i:end]): // what is read is looked at whole
			bad = errNoJSON()
		default:
			seen[field] = true
			bad = r.take(fields[field], body[i:end], span{i, end})
		}
		return end
	})
	switch {
	case to == 0 || w.space(to) < len(body):
		return r, errNoJSON()
	case bad != nil:
		return r, bad
	case r.Model == "":
		return r, errBody("model: Field required")
	}
	r.HideUsage = api == ChatCompletions && r.Stream && !asksForUsage(body[r.optionsAt.from:r.optionsAt.to])
	r.weight, r.marks = weight, w.marks
	return r, nil
}

func errNoJSON() *Error { return errBody("the request body is not valid JSON") }

func (r *Request) take(name string, value []byte, at span) *Error {
	absent := string(value) == "null"
	switch name {
	case "model":
		if readText(value, &r.Model); r.Model == "" {
			return errBody("model: Input should be a valid string")
		}
		r.modelAt = at
	case "stream":
		r.Stream = string(value) == "true"
		if !absent && !r.Stream && string(value) != "false" {
			return errBody("stream: Input should be a valid boolean")
		}
	case "max_tokens", "max_completion_tokens", "max_output_tokens", "n":
		n, err := strconv.ParseInt(string(value), 10, 64)
		if (err != nil || n < 1) && (!absent || r.api == Messages) {
			return errBody(name + ": Input should be a positive integer")
		}
		if name == "n" {
			r.Answers = n
		} else {
			r.MaxTokens = max(r.MaxTokens, n)
		}
	case "speed":
		r.Fast = string(value) == `"fast"`
	case "service_tier":
		readText(value, &r.ServiceTier) // whatever else it is, the upstream says
	case "metadata":
		if value[0] == '{' { // whatever else it is, the upstream says
			eachField(value, func(name []byte, at span) {
				if string(name) == "user_id" {
					readText(value[at.from:at.to], &r.ClientUser)
				}
			})
		}
	case "thread":
		return r.takeThread(value)
	case "previous_response_id":
		readText(value, &r.Previous) // as above
	case "store":
		r.Held = string(value) != "false"
	case "stream_options":
		r.optionsAt = at
	}
	return nil
}

// takeThread reads {"type":"create"} or
// {"type":"continue","previous_message_id":"msg_…"}.
func (r *Request) takeThread(value []byte) *Error {
	var t *struct {
		Type     string `json:"type"`
		Previous string `json:"previous_message_id"`
	}
	if json.Unmarshal(value, &t) != nil {
		return errBody("thread: Input should be an object")
	}
	if t == nil {
		return nil
	}
	r.Held = true
	if t.Type == "continue" {
		if t.Previous == "" {
			return errBody("thread.previous_message_id: Field required")
		}
		r.Previous = t.Previous
	}
	return nil
}

// asksForUsage says whether a value of stream_options has include_usage.
func asksForUsage(options []byte) bool {
	var o struct {
		IncludeUsage bool `json:"include_usage"`
	}
	return json.Unmarshal(options, &o) == nil && o.IncludeUsage
}

// ForUpstream is the body as the upstream gets it: with another model name in place of
// its own, if that differs, and with the usage of a stream asked for. Every other byte
// stays where it was, and is not copied.
func (r Request) ForUpstream(body []byte, model string) Body {
	type edit struct {
		at   span
		text string
	}
	var edits []edit
	if model != r.Model {
		edits = append(edits, edit{r.modelAt, string(encode(model))})
	}
	if r.HideUsage {
		at, text := r.askForUsage(body)
		edits = append(edits, edit{at, text})
	}
	if len(edits) == 0 {
		return BodyOf(body)
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.at.from - b.at.from })
	var out Body
	done := 0
	for _, e := range edits {
		out.pieces = append(out.pieces, body[done:e.at.from], []byte(e.text))
		done = e.at.to
	}
	out.pieces = append(out.pieces, body[done:])
	return out
}

// askForUsage is the edit that adds stream_options.include_usage.
func (r Request) askForUsage(body []byte) (span, string) {
	options := body[r.optionsAt.from:r.optionsAt.to]
	if len(options) == 0 {
		at := skipSpace(body, 0) + 1
		return span{at, at}, `"stream_options":{"include_usage":true},`
	}
	if options[0] != '{' {
		return r.optionsAt, `{"include_usage":true}`
	}
	var found *span
	fields := 0
	eachField(options, func(name []byte, at span) {
		fields++
		if string(name) == "include_usage" {
			found = &span{r.optionsAt.from + at.from, r.optionsAt.from + at.to}
		}
	})
	at := r.optionsAt.from + 1
	switch {
	case found != nil:
		return *found, "true"
	case fields == 0:
		return span{at, at}, `"include_usage":true`
	default:
		return span{at, at}, `"include_usage":true,`
	}
}

// eachField calls f for every field of a valid JSON object at the top level,
// with its name and the place of its value.
func eachField(object []byte, f func(name []byte, at span)) {
	for i := skipSpace(object, 1); object[i] != '}'; {
		end := skipValue(object, i)
		name := fieldName(object[i:end])
		from := skipSpace(object, skipSpace(object, end)+1) // past the colon
		to := skipValue(object, from)
		f(name, span{from, to})
		if i = skipSpace(object, to); object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
}

// fieldName reads a field's name; escapes in it are undone, since the upstream
// undoes them too.
func fieldName(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return nil
	}
	return []byte(name)
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n' {
		i++
	}
	return i
}

// skipValue returns the end of the valid JSON value that begins at i.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for ; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	default:
		for i < len(b) && bytes.IndexByte([]byte(",}] \t\r\n"), b[i]) < 0 {
			i++
		}
		return i
	}
}

// skipString returns the end of the valid string that begins at i.
func skipString(b []byte, i int) int {
	first := i + 1
	for i = first; ; i++ {
		i += bytes.IndexByte(b[i:], '"')
		slashes := i
		for slashes > first && b[slashes-1] == '\\' {
			slashes--
		}
		if (i-slashes)%2 == 0 {
			return i + 1
		}
	}
}
