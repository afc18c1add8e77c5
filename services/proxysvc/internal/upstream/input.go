package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

// inputSize is how much of an answer is read at once.
const inputSize = 16 << 10

var inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}

// source is where an input comes from: a sock.Conn.
type source interface {
	io.Reader
	Fill(buf sock.Buffer) (int, error)
}

// input is what comes from a connection. Most connections wait: one has a buffer only
// while something is in it, so that all share a few, which the processor has at hand.
type input struct {
	from source
	buf  *[inputSize]byte // nil while nothing is in it
	r, w int              // buf[r:w] has come, and was not used
	left int64            // what may still be read
	err  error            // what reading ended with
	odd  *bufio.Reader    // stands before it for an answer that net/http reads; nil: none does
}

var errTooLong = errors.New("the header of the upstream's answer is longer than 1 MiB")

// has is what has come. It is valid until more is read.
func (in *input) has() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf[in.r:in.w]
}

// more reads behind what has come. There must be room: less than a buffer was left.
func (in *input) more() error {
	if err := in.stopped(); err != nil {
		return err
	}
	if in.r > 0 {
		in.w = copy(in.buf[:], in.buf[in.r:in.w])
		in.r = 0
	}
	n, err := in.from.Fill(in)
	in.w += n
	in.count(n, err)
	in.Leave() // if nothing came
	return err
}

// Take implements sock.Buffer.
func (in *input) Take() []byte {
	if in.buf == nil {
		in.buf = inputs.Get().(*[inputSize]byte)
	}
	return in.buf[in.w:min(inputSize, int64(in.w)+in.left)]
}

// Leave implements sock.Buffer: without anything in it the buffer is given back.
func (in *input) Leave() {
	if in.buf != nil && in.r == in.w {
		inputs.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	}
}

// Read implements io.Reader: what has come, or else what comes, without a buffer.
func (in *input) Read(p []byte) (int, error) {
	if in.r < in.w {
		n := copy(p, in.has())
		in.r += n
		return n, nil
	}
	in.Leave()
	if err := in.stopped(); err != nil {
		return 0, err
	}
	n, err := in.from.Read(p[:min(int64(len(p)), in.left)])
	in.count(n, err)
	return n, err
}

func (in *input) stopped() error {
	if in.err == nil && in.left <= 0 {
		return errTooLong
	}
	return in.err
}

func (in *input) count(n int, err error) {
	in.left -= int64(n)
	in.err = err
}

// begin expects the beginning of an answer, which is short.
func (in *input) begin() { in.left = maxHead }

// unbounded expects its body.
func (in *input) unbounded() { in.left = math.MaxInt64 }

// byHTTP is the input as net/http reads an answer.
func (in *input) byHTTP() *bufio.Reader {
	if in.odd == nil {
		in.odd = bufio.NewReader(in)
	}
	return in.odd
}

// end gives the buffer back after an answer. False: more has come than the answer.
func (in *input) end() bool {
	over := in.odd != nil && in.odd.Buffered() > 0 || in.r < in.w
	in.r, in.odd = in.w, nil
	in.Leave()
	return !over
}

// crlf ends each line.
var crlf = []byte("\r\n")

// line takes a line of at most so many bytes, without its end, out of what has come.
// Nil, without an error: its end is still to come.
func (in *input) line(most int) ([]byte, error) {
	has := in.has()
	n := bytes.IndexByte(has, '\n')
	switch {
	case n >= most, n < 0 && len(has) >= most:
		return nil, errChunks
	case n < 0:
		return nil, nil
	case n == 0, bytes.IndexByte(has, '\r') != n-1:
		return nil, errChunks
	}
	in.r += n + 1
	return has[:n-1], nil
}
