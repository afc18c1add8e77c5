package proxy

import (
	"compress/gzip"
	"errors"
	"io"
)

// decoder undoes the compression of an answer on the side, so that it can be
// metered while the client gets the bytes as they came.
type decoder interface {
	// Feed returns what the bytes so far say that was not returned yet. The
	// result is valid until the next call.
	Feed(p []byte) ([]byte, error)
	// Close frees the decoder.
	Close()
}

// newDecoder picks the decoder for a Content-Encoding: none for an answer that
// is not compressed. An encoding that the standard library cannot read is
// opaque.
func newDecoder(encoding string) (d decoder, opaque bool) {
	switch encoding {
	case "", "identity":
		return nil, false
	case "gzip", "x-gzip":
		return newGunzip(), false
	default:
		return nil, true
	}
}

// maxDecoded bounds what one answer may unfold to.
const maxDecoded = maxAnswer

var errDecoded = errors.New("the answer unfolds to more than is looked at")

// gunzip decodes piece by piece. The standard reader pulls, so it runs in a
// goroutine of its own; a Feed ends when that asks for more than was fed. The
// two take turns: while one works on plain, the other waits.
type gunzip struct {
	in     chan []byte
	turn   chan error // nil: more input is needed
	closed chan struct{}
	held   []byte // of the piece that is being read
	fed    bool
	plain  []byte
	err    error
}

func newGunzip() *gunzip {
	g := &gunzip{in: make(chan []byte), turn: make(chan error), closed: make(chan struct{})}
	go g.run()
	return g
}

// Feed implements decoder.
func (g *gunzip) Feed(p []byte) ([]byte, error) {
	if g.err != nil || len(p) == 0 {
		return nil, g.err
	}
	g.plain = g.plain[:0]
	g.in <- p
	g.err = <-g.turn
	return g.plain, g.err
}

// Close implements decoder.
func (g *gunzip) Close() { close(g.closed) }

func (g *gunzip) run() {
	r, err := gzip.NewReader(g)
	buf := make([]byte, 32<<10)
	total := 0
	for err == nil {
		r.Multistream(false) // or the end of a member is held back until the next one begins
		var n int
		n, err = r.Read(buf)
		if n > 0 {
			g.plain = append(g.plain, buf[:n]...)
		}
		if total += n; total > maxDecoded {
			err = errDecoded
		}
		if errors.Is(err, io.EOF) {
			err = r.Reset(g)
		}
	}
	g.pass(err)
}

// pass ends a turn; it is false when the decoder is closed.
func (g *gunzip) pass(err error) bool {
	select {
	case g.turn <- err:
		return true
	case <-g.closed:
		return false
	}
}

// Read is the pulled end: it asks for more when the piece that was fed is used
// up.
func (g *gunzip) Read(p []byte) (int, error) {
	if err := g.more(); err != nil {
		return 0, err
	}
	n := copy(p, g.held)
	g.held = g.held[n:]
	return n, nil
}

// ReadByte keeps the standard reader from reading ahead.
func (g *gunzip) ReadByte() (byte, error) {
	if err := g.more(); err != nil {
		return 0, err
	}
	b := g.held[0]
	g.held = g.held[1:]
	return b, nil
}

func (g *gunzip) more() error {
	for len(g.held) == 0 {
		if g.fed && !g.pass(nil) {
			return io.ErrUnexpectedEOF
		}
		g.fed = true
		select {
		case g.held = <-g.in:
		case <-g.closed:
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}
