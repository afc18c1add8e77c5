package sse

import "bytes"

// DefaultLimit is the longest event that a Splitter holds unless told otherwise.
const DefaultLimit = 1 << 20

// Splitter cuts a stream into events. Memory is bounded: it holds at most one
// unfinished event, up to its limit. It is not safe for concurrent use.
type Splitter struct {
	limit   int
	held    []byte // the unfinished event, as far as earlier calls brought it
	scratch []byte // joined data lines
	partial bool   // the current event is over the limit and being passed on
	begun   bool   // the first event, which may carry a byte order mark, is past

	inLine bool // the current line has at least one byte
	cr     bool // the last byte was a CR: an LF now belongs to it
	ended  bool // the blank line ended in a CR: an LF may still follow
}

// NewSplitter returns a Splitter that reports events of up to limit bytes whole
// and longer ones in pieces. A limit of zero or less means DefaultLimit.
func NewSplitter(limit int) *Splitter {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Splitter{limit: limit}
}

// Feed takes the next bytes of the stream and calls emit for each event that
// they complete, in order. How the stream was cut into calls does not change
// the events, save for the sizes of the pieces of an over-long one. An event
// whose blank line ends in a lone CR is complete only with the byte after it,
// because that may be the LF of a CRLF.
//
// An error of emit is returned at once; the Splitter is of no use afterwards.
func (s *Splitter) Feed(p []byte, emit func(Event) error) error {
	for len(p) > 0 {
		n, complete := s.scan(p)
		if err := s.take(p[:n], complete, emit); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Rest returns the bytes of an event that was begun but not finished. At the
// end of a stream a relay passes them on; browsers discard such an event. It is
// valid until the next Feed.
func (s *Splitter) Rest() []byte { return s.held }

// scan returns how many bytes of p belong to the current event, and whether
// they complete it. It may be none: a byte can show that the event had ended
// before it.
func (s *Splitter) scan(p []byte) (n int, complete bool) {
	for i := 0; i < len(p); i++ {
		b := p[i]
		switch {
		case s.ended:
			s.ended, s.cr = false, false
			if b == '\n' {
				return i + 1, true
			}
			return i, true
		case b == '\n' && s.cr:
			s.cr = false
		case b == '\n':
			if !s.inLine {
				return i + 1, true
			}
			s.inLine = false
		case b == '\r':
			s.cr, s.ended, s.inLine = true, !s.inLine, false
		default:
			s.cr, s.inLine = false, true
			i += lineLen(p[i:]) - 1
		}
	}
	return len(p), false
}

// take adds piece to the current event and emits what is due.
func (s *Splitter) take(piece []byte, complete bool, emit func(Event) error) error {
	if s.partial || len(s.held)+len(piece) > s.limit {
		return s.pass(piece, complete, emit)
	}
	if !complete {
		s.held = append(s.held, piece...)
		return nil
	}
	raw := piece
	if len(s.held) > 0 {
		s.held = append(s.held, piece...)
		raw = s.held
		s.held = s.held[:0]
	}
	return emit(s.parse(raw))
}

// pass emits what is held and piece as pieces of an over-long event.
func (s *Splitter) pass(piece []byte, complete bool, emit func(Event) error) error {
	held := s.held
	s.held, s.partial, s.begun = s.held[:0], !complete, true
	for _, raw := range [][]byte{held, piece} {
		if len(raw) == 0 {
			continue
		}
		if err := emit(Event{Raw: raw, Partial: true}); err != nil {
			return err
		}
	}
	return nil
}

// parse reads the fields of a complete event. A byte order mark is skipped at
// the start of the stream only, as the standard says.
func (s *Splitter) parse(raw []byte) Event {
	fields := raw
	if !s.begun {
		s.begun = true
		fields = bytes.TrimPrefix(raw, byteOrderMark)
	}
	var ev Event
	ev, s.scratch = parse(fields, s.scratch)
	ev.Raw = raw
	return ev
}
