package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/proliferate-ai/llm-proxy/kit/head"
)

// TestAWholeAnswerIsReadToItsEnd reads into a buffer that another answer has left.
func TestAWholeAnswerIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	broke := errors.New("it broke")
	long := strings.Repeat("0123456789", 300)
	for _, tt := range []struct {
		name   string
		body   io.Reader
		length int64
		most   int
		want   string
		err    error // nil, io.ErrUnexpectedEOF, broke or another one
	}{
		{"of a known length", strings.NewReader(long), 3000, 3000, long, nil},
		{"whose end comes with its last bytes", iotest.DataErrReader(strings.NewReader(long)), 3000, 3000, long, nil},
		{"of an unknown length", iotest.HalfReader(strings.NewReader(long)), -1, 3000, long, nil},
		{"without anything", strings.NewReader(""), 0, 3000, "", nil},
		{"shorter than it said", strings.NewReader("012"), 4, 3000, "012", io.ErrUnexpectedEOF},
		{"that breaks off", io.MultiReader(strings.NewReader("012"), iotest.ErrReader(broke)), -1, 3000, "012", broke},
		{"too long", iotest.OneByteReader(strings.NewReader(long)), 3000, 2999, long, io.ErrShortBuffer},
	} {
		for _, buf := range [][]byte{nil, bytes.Repeat([]byte("another's"), 100), bytes.Repeat([]byte("another's"), 1000)} {
			got, err := readWhole(&UpstreamResponse{Body: io.NopCloser(tt.body), Length: tt.length}, tt.most, buf)
			if tt.err == io.ErrShortBuffer { //nolint:errorlint // it stands for an error of ours
				if err == nil {
					t.Errorf("%s: read", tt.name)
				}
			} else if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%s, into %d bytes: %q, %v, want %q, %v", tt.name, len(buf), got, err, tt.want, tt.err)
			}
			if s, ok := tt.body.(io.Seeker); ok {
				s.Seek(0, io.SeekStart) //nolint:errcheck // it is a strings.Reader
			} else {
				break // it can be read once
			}
		}
	}
}

// gone is a client that has gone, or takes what it gets.
type gone struct {
	err error
	got []byte // not copied
}

func (*gone) Start(int, head.Lines) error { return nil }
func (*gone) Stop()                       {}
func (g *gone) Last(p []byte) error       { return g.Write(p) }
func (g *gone) Write(p []byte) error {
	g.got = p
	return g.err
}

// TestAnAnswerThatWasNotTakenKeepsItsBuffer looks for it among those that are used again.
// No other test runs meanwhile.
func TestAnAnswerThatWasNotTakenKeepsItsBuffer(t *testing.T) {
	svc := hotService(t)
	left := func(err error) (again bool) {
		for range 20 {
			sink := &gone{err: err}
			if got := svc.CreateMessage(t.Context(), hotCall(hotBody(2<<10, false)), sink); !errors.Is(got, err) || len(sink.got) == 0 {
				t.Fatalf("%d bytes, %v", len(sink.got), got)
			}
			buf := *wholes.Get().(*[]byte)
			again = again || cap(buf) > 0 && &buf[:1][0] == &sink.got[0]
		}
		return again
	}
	if left(errors.New("the client has gone")) {
		t.Error("a buffer is used again that its server may still read")
	}
	if !left(nil) {
		t.Error("no buffer is used again")
	}
}
