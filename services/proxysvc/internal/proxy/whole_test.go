package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
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
