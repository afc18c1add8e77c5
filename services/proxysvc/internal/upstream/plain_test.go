package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/proliferate-ai/llm-proxy/kit/sock"
)

// text is an answer as it comes from a connection.
type text struct{ io.Reader }

func (t text) Fill(buf sock.Buffer) (int, error) { return t.Read(buf.Take()) }

// of is the input of a connection that brings so much.
func of(r io.Reader) *input {
	in := &input{from: text{r}}
	in.unbounded()
	return in
}

// FuzzPlain has http.ReadResponse read the same answers.
func FuzzPlain(f *testing.F) {
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nrequest-id:r \r\nContent-Length: 2",
		"HTTP/1.1 200 OK\r\nContent-Length: 0", "HTTP/1.1 200 OK\r\nContent-Length: 9", "HTTP/1.1 200 OK\r\ncontent-length:\t2\t",
		"HTTP/1.1 529 Site is overloaded\r\nX-A: 1\r\nX-A: 2\r\nx-a: 3\r\nContent-Length: 2", "HTTP/1.1 200 \r\nContent-Length: 2",
		"HTTP/1.1 200\r\nContent-Length: 2", "HTTP/1.0 200 OK\r\nContent-Length: 2", "HTTP/1.1 204 No Content\r\nContent-Length: 2",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 2", "HTTP/1.1 100 Continue\r\nContent-Length: 2", "HTTP/1.1 2a0 OK\r\nContent-Length: 2",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2", "HTTP/1.1 200 OK\r\nContent-Length: +2", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n X-A: b", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A : b", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n: b",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\x00", "HTTP/1.1 200 OK\nContent-Length: 2", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nPragma: no-cache",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: \xc3\xa4", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999",
		"HTTP/1.1 200 OK\r\nContent-Length: -1", "HTTP/1.1 200 OK\r\nContent-Length:", "HTTP/1.1 200 OK\r\nContent-Length: 002",
	} {
		f.Add([]byte(head + "\r\n\r\n{}"))
		f.Add([]byte(head + "\r\n\r\n{}HTTP/1.1 200 OK\r\n"))
	}
	for _, body := range hostile {
		f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nX-A: 1\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		in := of(bytes.NewReader(text))
		got, ok := readPlain(in, &plainBody{})
		if !ok {
			if rest, err := io.ReadAll(in); err != nil || !bytes.Equal(rest, text) {
				t.Fatalf("%q: something was taken of it", text)
			}
			return
		}
		ref := bufio.NewReader(bytes.NewReader(text))
		want, err := http.ReadResponse(ref, nil)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		body, bodyErr := io.ReadAll(got.body)
		wantBody, wantErr := io.ReadAll(want.Body)
		inChunks := got.length < 0
		if !bytes.Equal(body, wantBody) || (bodyErr == nil) != (wantErr == nil) || !inChunks && !errors.Is(bodyErr, wantErr) {
			t.Errorf("%q: body %q, %v; want %q, %v", text, body, bodyErr, wantBody, wantErr)
		}
		if bodyErr != nil {
			return // the connection is closed
		}
		rest, _ := io.ReadAll(in)
		wantRest, _ := io.ReadAll(ref)
		if !bytes.Equal(rest, wantRest) {
			t.Errorf("%q: %q follows, want %q", text, rest, wantRest)
		}
		header := http.Header{}
		for _, l := range got.header {
			header[l.Name] = append(header[l.Name], l.Value)
		}
		if got.status != want.StatusCode || got.length != want.ContentLength || got.last != want.Close || !reflect.DeepEqual(header, want.Header) {
			t.Errorf("%q:\n got %+v\nwant %+v", text, got, want)
		}
	})
}

// TestAHeadInPiecesIsNotPlain leaves it to net/http.
func TestAHeadInPiecesIsNotPlain(t *testing.T) {
	t.Parallel()
	in := of(iotest.OneByteReader(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")))
	if _, ok := readPlain(in, &plainBody{}); ok {
		t.Error("it was read")
	}
	resp, err := http.ReadResponse(in.byHTTP(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "{}" {
		t.Errorf("%q, %v", body, err)
	}
}
