// Package head has the lines of an HTTP header in a slice: to make a dozen of them, and
// to look through them, costs less than net/http's map of slices.
package head

import (
	"net/textproto"
	"strings"
)

// Line is one line of a header. Its name is canonical.
type Line struct{ Name, Value string }

// Lines are a header, in their order.
type Lines []Line

// Get returns the first value of a header by its canonical name, or "".
func (l Lines) Get(name string) string {
	value, _ := l.Find(name)
	return value
}

// Find is Get, and says whether there is one.
func (l Lines) Find(name string) (value string, found bool) {
	for i := range l {
		if l[i].Name == name {
			return l[i].Value, true
		}
	}
	return "", false
}

// Parse reads lines, each NAME:VALUE with CRLF behind it, as net/http does, and leaves
// room for so many more. It does not look whether a name or a value has characters that
// it may not have.
func Parse(text string, more int) Lines {
	lines := make(Lines, 0, strings.Count(text, "\n")+more)
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		lines = append(lines, Line{textproto.CanonicalMIMEHeaderKey(name), textproto.TrimString(value)})
	}
	return lines
}
