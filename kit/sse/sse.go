// Package sse finds the events in a stream of server-sent events without
// changing a byte of it.
//
// It is made for a relay that forwards what it receives and only looks at it on
// the side: a Splitter is fed the bytes as they were read and says where events
// end, what they are called and what they carry. It does not reconnect, does
// not track ids or retry times, and never drops anything: comments, empty
// blocks and unknown fields are part of some event's raw bytes, so that the raw
// bytes of all events and Rest are the stream.
//
// The format is that of the HTML standard, section 9.2.6 "Interpreting an event
// stream": lines end in LF, CRLF or CR, a blank line ends an event, several data
// lines are joined with LF, the last event line names the event.
package sse

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Event is one block of the stream, up to and including its blank line. Its
// slices are views that are valid only until emit returns.
type Event struct {
	// Raw is every byte of the block. Never empty.
	Raw []byte
	// Name is the value of the last event field; empty when there is none.
	Name []byte
	// Data is the value of the data fields, joined with LF. It is nil when the
	// block has no data field (a comment or a stray blank line): browsers do
	// not dispatch such a block.
	Data []byte
	// Partial marks a piece of an event that is longer than the limit. Only Raw
	// is set then; the pieces of such an event follow one another.
	Partial bool
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// Parse reads the fields of one block, such as what Rest returns at the end of
// a stream. The result refers to raw.
func Parse(raw []byte) Event {
	ev, _ := parse(raw, nil)
	return ev
}

// parse reads the fields of raw. Data lines are joined in scratch, which is
// returned for use with the next event; a single data line needs none.
func parse(raw, scratch []byte) (Event, []byte) {
	ev := Event{Raw: raw}
	lines := 0
	for rest := raw; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		name, value := cutField(line)
		switch string(name) {
		case "event":
			ev.Name = value
		case "data":
			lines++
			switch lines {
			case 1:
				ev.Data = value
			case 2:
				scratch = append(append(append(scratch[:0], ev.Data...), '\n'), value...)
			default:
				scratch = append(append(scratch, '\n'), value...)
			}
		}
	}
	if lines > 1 {
		ev.Data = scratch
	}
	return ev, scratch
}

// cutLine returns the first line of p without its end, and what follows it.
func cutLine(p []byte) (line, rest []byte) {
	i := lineLen(p)
	switch {
	case i == len(p):
		return p, nil
	case p[i] == '\r' && i+1 < len(p) && p[i+1] == '\n':
		return p[:i], p[i+2:]
	}
	return p[:i], p[i+1:]
}

// lineLen returns the index of the first CR or LF of p, or its length. It looks at eight
// bytes at once: both are searched for, and bytes.IndexByte would go past the line for the
// one that is not in it.
func lineLen(p []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		lf, cr := w^('\n'*ones), w^('\r'*ones)
		// The high bit of a byte is set where it is zero in one of the two; the first
		// such byte is right, later ones may not be.
		if found := ((lf-ones)&^lf | (cr-ones)&^cr) & highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(p) && p[i] != '\n' && p[i] != '\r' {
		i++
	}
	return i
}

// cutField splits a line at its first colon and takes one space off the value.
// A line without a colon is a field with an empty value; a comment, which
// starts with the colon, is a field without a name.
func cutField(line []byte) (name, value []byte) {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found {
		return line, line[len(line):]
	}
	return name, bytes.TrimPrefix(value, []byte(" "))
}
