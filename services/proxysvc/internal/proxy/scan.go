package proxy

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Request is what the proxy needs to know of a Messages body.
type Request struct {
	Model     string
	Stream    bool
	MaxTokens int64 // 0: not given
	Fast      bool  // asks for fast mode
	// modelAt is where the model's JSON string stands in the body, quotes
	// included.
	modelAt [2]int
}

// Scan finds the fields at the top level of a body without decoding the rest.
// The body must be one valid JSON object and may not name a field twice that
// the proxy reads: the upstream could take the other one.
func Scan(body []byte) (Request, *Error) {
	var r Request
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return r, errBody("the request body is empty; a JSON object is needed")
	}
	if !json.Valid(body) {
		return r, errBody("the request body is not valid JSON")
	}
	seen := map[string]bool{}
	err := eachField(body, func(name string, from, to int) *Error {
		switch name {
		case "model", "stream", "max_tokens", "speed":
		default:
			return nil
		}
		if seen[name] {
			return errBody(name + ": given twice")
		}
		seen[name] = true
		return r.take(name, body[from:to], from)
	})
	if err != nil {
		return r, err
	}
	if r.Model == "" {
		return r, errBody("model: Field required")
	}
	return r, nil
}

func (r *Request) take(name string, value []byte, at int) *Error {
	switch name {
	case "model":
		if json.Unmarshal(value, &r.Model) != nil || r.Model == "" {
			return errBody("model: Input should be a valid string")
		}
		r.modelAt = [2]int{at, at + len(value)}
	case "stream":
		if string(value) != "null" && json.Unmarshal(value, &r.Stream) != nil {
			return errBody("stream: Input should be a valid boolean")
		}
	case "max_tokens":
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 1 {
			return errBody("max_tokens: Input should be a positive integer")
		}
		r.MaxTokens = n
	case "speed":
		r.Fast = string(value) == `"fast"`
	}
	return nil
}

// WithModel returns the body with another model name in place of its own, and
// every other byte where it was. The body itself is not changed.
func (r Request) WithModel(body []byte, model string) []byte {
	if model == r.Model {
		return body
	}
	name, err := json.Marshal(model)
	if err != nil {
		return body // cannot happen: strings always marshal
	}
	out := make([]byte, 0, len(body)+len(name))
	out = append(out, body[:r.modelAt[0]]...)
	out = append(out, name...)
	return append(out, body[r.modelAt[1]:]...)
}

// eachField calls f for every field of a valid JSON object at the top level,
// with the place of its value.
func eachField(body []byte, f func(name string, from, to int) *Error) *Error {
	i := skipSpace(body, 0)
	if body[i] != '{' {
		return errBody("the request body must be a JSON object")
	}
	i = skipSpace(body, i+1)
	for body[i] != '}' {
		end := skipValue(body, i)
		name := fieldName(body[i:end])
		from := skipSpace(body, skipSpace(body, end)+1) // past the colon
		to := skipValue(body, from)
		if err := f(name, from, to); err != nil {
			return err
		}
		if i = skipSpace(body, to); body[i] == ',' {
			i = skipSpace(body, i+1)
		}
	}
	return nil
}

// fieldName reads a field's name; escapes in it are undone, since the upstream
// undoes them too.
func fieldName(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return ""
	}
	return name
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

func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}
