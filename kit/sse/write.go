package sse

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Write writes one event to w in a single call of w.Write, so that a writer that
// flushes per call never sends half an event. An empty name writes no event
// line. Data of several lines becomes several data lines, whatever ends them.
// A name with a line break is refused.
func Write(w io.Writer, name string, data []byte) error {
	if strings.ContainsAny(name, "\r\n") {
		return fmt.Errorf("event name %q has a line break", name)
	}
	var b bytes.Buffer
	b.Grow(len(name) + len(data) + len("event: \ndata: \n\n"))
	if name != "" {
		b.WriteString("event: ")
		b.WriteString(name)
		b.WriteByte('\n')
	}
	for {
		line, rest := cutLine(data)
		b.WriteString("data: ")
		b.Write(line)
		b.WriteByte('\n')
		if len(line) == len(data) {
			break
		}
		data = rest
	}
	b.WriteByte('\n')
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}
