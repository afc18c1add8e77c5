package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// hostile are bodies in chunks as they should be and as they should not.
var hostile = []string{
	"5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "0\r\n\r\n", "00000005\r\nhello\r\n000\r\n\r\n", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
	"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", "5 \t\r\nhello\r\n0 \r\n\r\n", "5;a=b\r\nhello\r\n0;\"c\"\r\n\r\n", "5 ;a=b\r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n",
	"", "5", "5\r", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r", "5\r\nhello\r\n", "5\r\nhello\r\n0", "5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\n\r",
	"5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhelloX0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "5\r\nhello\r\n0\r\n\n", "5\r\r\nhello\r\n0\r\n\r\n", "5;\ra\r\nhello\r\n0\r\n\r\n",
	"\r\nhello\r\n0\r\n\r\n", ";a\r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "5g\r\nhello\r\n0\r\n\r\n", "5,5\r\nhello\r\n0\r\n\r\n",
	"ffffffffffffffff\r\nhello", "7fffffffffffffff\r\nhello", "10000000000000000\r\nhello", "00000000000000005\r\nhello\r\n0\r\n\r\n", "0000000000000005\r\nhello\r\n0\r\n\r\n",
	"5\r\nhello\r\n0\r\nA: b\r\n\r\n", "5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\nHTTP/1.1 200 OK\r\n", "5\r\nhello\r\n0\r\nA: b", "5\r\nhello\r\n0\r\nA: b\r\n", "5\r\nhello\r\n0\r\nno header\r\n\r\n", "5\r\nhello\r\n0\r\n A: b\r\n\r\n",
	"5\r\nhello\r\n0\r\nA: b\r\nContent-Length: 3\r\n\r\n", "5\r\nhello\r\n0\r\nA: " + strings.Repeat("b", 5000) + "\r\n\r\n", "5\r\nhello\r\n0\r\nA: " + strings.Repeat("b", 4000) + "\r\n\r\n",
	"5;" + strings.Repeat("a", 4000) + "\r\nhello\r\n0\r\n\r\n", "5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n", strings.Repeat("a", 20_000),
	strings.Repeat("1\r\nx\r\n", 10_000) + "0\r\n\r\n", strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 1000) + "0\r\n\r\n",
	"4e20\r\n" + strings.Repeat("x", 20_000) + "\r\n0\r\n\r\n",
}

// dripping gives what it has in pieces of random sizes.
type dripping struct {
	r     *rand.Rand
	most  int
	whole io.Reader
}

func (d dripping) Read(p []byte) (int, error) {
	return d.whole.Read(p[:min(len(p), 1+d.r.IntN(d.most))])
}

// TestChunksAreReadAsNetHTTPDoes has both read the same bodies, however they come.
func TestChunksAreReadAsNetHTTPDoes(t *testing.T) {
	t.Parallel()
	for _, sent := range hostile {
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+sent)), nil)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := io.ReadAll(resp.Body)
		resp.Body.Close()
		for seed := range uint64(24) {
			r := rand.New(rand.NewPCG(seed, 2))
			b := &chunks{in: of(dripping{r, 1 << r.IntN(16), strings.NewReader(sent)})}
			var got []byte
			var err error
			if small := make([]byte, 1+r.IntN(50)); seed%2 == 0 {
				got, err = drained(t, func() ([]byte, error) {
					ready := r.IntN(2) == 0 && b.ready()
					ended := r.IntN(2) == 0 && b.ended()
					p, err := b.next()
					if ended && (len(p) > 0 || !errors.Is(err, io.EOF)) {
						t.Errorf("%.60q: %q comes behind the end, %v", sent, p, err)
					}
					if ready && len(p) == 0 {
						t.Errorf("%.60q: nothing is ready that was, but %v", sent, err)
					}
					return p, err
				})
			} else {
				got, err = drained(t, func() ([]byte, error) {
					n, err := b.Read(small)
					return small[:n], err
				})
			}
			if !bytes.Equal(got, want) || (err == io.EOF) != (wantErr == nil) { //nolint:errorlint // as io.Reader says
				t.Errorf("%.60q, seed %d: %d bytes %.60q, %v, want %d bytes %.60q, %v", sent, seed, len(got), got, err, len(want), want, wantErr)
			}
			if again, e := b.next(); len(again) > 0 || e != err { //nolint:errorlint // the same one
				t.Errorf("%.60q: %q, %v after %v", sent, again, e, err)
			}
		}
	}
}

// drained is all that comes, and what ends it: nothing comes with that.
func drained(t *testing.T, next func() ([]byte, error)) (all []byte, err error) {
	t.Helper()
	for {
		p, err := next()
		if err != nil {
			if len(p) > 0 {
				t.Errorf("%q came with %v", p, err)
			}
			return all, err
		}
		all = append(all, p...)
	}
}

// TestAnEndThatHasComeIsSeen reads what came in one piece, with its end and without.
func TestAnEndThatHasComeIsSeen(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]bool{
		"5\r\nhello\r\n0\r\n\r\n": true, "5\r\nhello\r\n0\r\nA: b\r\n\r\n": true, "0\r\n\r\n": true,
		"5\r\nhello\r\n0\r\n": false, "5\r\nhello\r\n": false, "5\r\nhello\r\nx": false, "": false,
	} {
		b := &chunks{in: of(strings.NewReader(sent))}
		if err := b.in.more(); err != nil && sent != "" {
			t.Fatal(err)
		}
		if strings.HasPrefix(sent, "5") {
			if b.ended() {
				t.Errorf("%q: the end is seen before what comes first", sent)
			}
			if p, err := b.next(); string(p) != "hello" || err != nil {
				t.Fatalf("%q: %q, %v", sent, p, err)
			}
		}
		if got := b.ended(); got != want {
			t.Errorf("%q: the end has come: %t, want %t", sent, got, want)
		}
	}
}
