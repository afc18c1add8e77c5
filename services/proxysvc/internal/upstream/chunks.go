package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/textproto"
)

// chunks is a body that comes in chunks. It takes what net/http's reader takes and
// refuses what that refuses, and leaves the bytes where they were read to.
type chunks struct {
	in   *input
	left uint64 // of the chunk that has begun
	at   place  // what comes next
	// excess is what came beyond the body: little is said in many small chunks, but not
	// in extensions of theirs.
	excess int64
	had    []byte // what ready has found
	rest   []byte // of what next returned, for Read
	err    error  // what it ended with
	odd    bool   // a trailer came
}

// place is where in a chunk something is.
type place int

const (
	atSize    place = iota // the line with its size
	atData                 // the body's bytes
	atDataEnd              // the line end behind them
	atTrailer              // what is behind the last chunk
)

// maxChunkLine is how long the line with a chunk's size may be, and the trailer.
const maxChunkLine = 4096

// maxExcess is net/http's.
const maxExcess = 16 << 10

var errChunks = errors.New("the upstream's answer has malformed chunks")

// next returns what has come of the body, which is valid until the next call, or waits
// for it. The end and errors come by themselves.
func (b *chunks) next() ([]byte, error) {
	for {
		if b.ready() {
			p := b.had
			b.had = nil
			return p, nil
		}
		if b.err != nil {
			return nil, b.err
		}
		if err := b.in.more(); errors.Is(err, io.EOF) {
			b.err = io.ErrUnexpectedEOF
		} else {
			b.err = err
		}
	}
}

// ready says whether next has something to return without waiting.
func (b *chunks) ready() bool {
	if len(b.had) == 0 {
		b.had = b.take()
	}
	return len(b.had) > 0
}

// ended says whether nothing but the end is left, and has come.
func (b *chunks) ended() bool { return !b.ready() && len(b.rest) == 0 && errors.Is(b.err, io.EOF) }

// take returns the body's part of what has come. What stands in several chunks is moved
// together.
func (b *chunks) take() []byte {
	in := b.in
	from, to := 0, 0 // of the buffer
	for in.r < in.w && b.err == nil {
		if b.at != atData {
			if b.framing() {
				continue
			}
			break
		}
		n := int(min(b.left, uint64(in.w-in.r)))
		if from == to {
			from, to = in.r, in.r+n
		} else {
			to += copy(in.buf[to:], in.buf[in.r:in.r+n])
		}
		in.r += n
		if b.left -= uint64(n); b.left == 0 {
			b.at = atDataEnd
		}
	}
	if from == to {
		return nil
	}
	return in.buf[from:to]
}

// framing reads what stands between the body's bytes. False: it is not all there yet,
// or not valid.
func (b *chunks) framing() bool {
	switch b.at {
	case atSize:
		line, err := b.in.line(maxChunkLine)
		if b.err = err; line == nil {
			return false
		}
		return b.begin(line)
	case atTrailer:
		return b.finish()
	case atData, atDataEnd:
	}
	has := b.in.has()
	switch {
	case len(has) < len(crlf):
		return false
	case !bytes.HasPrefix(has, crlf):
		b.err = errChunks
		return false
	}
	b.in.r += len(crlf)
	b.at = atSize
	return true
}

// begin reads a chunk's size out of its line.
func (b *chunks) begin(line []byte) bool {
	digits, _, _ := bytes.Cut(bytes.TrimRight(line, " \t"), []byte(";"))
	b.left = 0
	for _, c := range digits {
		d, ok := hexDigit(c)
		if !ok {
			b.err = errChunks
		}
		b.left = b.left<<4 | d
	}
	b.excess = max(b.excess+int64(len(line)+len(crlf))-16-2*int64(b.left), 0)
	if len(digits) == 0 || len(digits) > 16 || b.excess > maxExcess {
		b.err = errChunks
	}
	if b.at = atData; b.left == 0 {
		b.at = atTrailer
	}
	return b.err == nil
}

func hexDigit(c byte) (d uint64, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return uint64(c|0x20-'a') + 10, true
	}
	return 0, false
}

// finish reads the end of the body. A trailer says nothing to anybody, but must be one.
func (b *chunks) finish() bool {
	const blank = "\r\n\r\n"
	has := b.in.has()
	end := bytes.Index(has[:min(len(has), maxChunkLine)], []byte(blank))
	switch {
	case bytes.HasPrefix(has, crlf):
		b.in.r += len(crlf)
		b.err = io.EOF
	case end >= 0:
		lines := has[:end+len(blank)]
		b.in.r += len(lines)
		b.err, b.odd = io.EOF, true
		if _, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(lines))).ReadMIMEHeader(); err != nil {
			b.err = errChunks
		}
	case len(has) >= maxChunkLine:
		b.err = errChunks
	}
	return b.err != nil
}

// Read implements io.Reader.
func (b *chunks) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		var err error
		if b.rest, err = b.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (*chunks) Close() error { return nil }
