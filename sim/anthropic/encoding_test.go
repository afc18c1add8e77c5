package anthropic_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
)

// raw asks without the transport's own decompression.
func (b bundle) raw(t *testing.T, path, body, script string) (*http.Response, []byte, error) {
	t.Helper()
	// A transport that is told of an encoding leaves the answer as it is.
	return b.do(t, b.request(t, "POST", path, body, map[string]string{"accept-encoding": "identity", "x-sim-script": script}))
}

func gunzip(p []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func turned(p []byte) []byte {
	p = bytes.Clone(p)
	for i := range p {
		p[i] ^= 0x80
	}
	return p
}

func TestAnswersAreCompressedWhateverTheClientAccepts(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for _, tt := range []struct{ name, path, extra, script string }{
		{"in one piece", "/v1/messages", "", ""},
		{"a stream", "/v1/messages", streaming, ""},
		{"a stream in small pieces", "/v1/messages", streaming, "trickle=5"},
		{"an error", "/v1/messages", streaming, "error=529"},
		{"an error that is no JSON", "/v1/messages", "", "error=502;body=html"},
		{"a stream with an error", "/v1/messages", streaming, "stream_error=after:2"},
		{"a count", "/v1/messages/count_tokens", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, plain, _ := b.raw(t, tt.path, say("hi", tt.extra), tt.script)
			for _, encoding := range []string{"gzip", "br"} {
				resp, got, err := b.raw(t, tt.path, say("hi", tt.extra), "encoding="+encoding+";"+tt.script)
				if err != nil || resp.Header.Get("content-encoding") != encoding {
					t.Fatalf("%v, content-encoding = %q, want %s", err, resp.Header.Get("content-encoding"), encoding)
				}
				if length := resp.Header.Get("content-length"); tt.extra == "" && length != strconv.Itoa(len(got)) {
					t.Errorf("content-length = %s of %d bytes", length, len(got))
				}
				decoded := turned(got)
				if encoding == "gzip" {
					if decoded, err = gunzip(got); err != nil {
						t.Fatalf("gunzip: %v", err)
					}
				}
				if diff := cmp.Diff(ids.ReplaceAllString(string(plain), "ID"), ids.ReplaceAllString(string(decoded), "ID")); diff != "" {
					t.Errorf("%s (-plain +decoded):\n%s", encoding, diff)
				}
			}
		})
	}
}

func TestACompressedAnswerIsServed(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for _, script := range []string{"encoding=gzip", "encoding=br"} {
		for _, extra := range []string{"", streaming} {
			_, _, _ = b.raw(t, "/v1/messages", say("hi", extra), script)
		}
	}
	if len(b.Ledger()) != 4 {
		t.Errorf("%d entries, want 4", len(b.Ledger()))
	}
	for _, e := range b.Ledger() {
		if !e.Finished || e.Usage.OutputTokens != 21 {
			t.Errorf("entry %+v, want finished with 21 tokens", e)
		}
	}
}

// TestCompressedEventsArriveOneByOne reads a stream that stalls: what was sent
// until then can be decoded although no more comes.
func TestCompressedEventsArriveOneByOne(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	header := map[string]string{"accept-encoding": "gzip", "x-sim-script": "encoding=gzip;stall=after:2"}
	resp, err := b.http.Client().Do(b.request(t, "POST", "/v1/messages", say("hi", streaming), header))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for buf := make([]byte, 1024); bytes.Count(seen, []byte("content_block_delta\n")) < 2; {
		n, err := r.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			t.Fatalf("read: %v after %q", err, seen)
		}
	}
}

func TestACutLeavesTheCompressionUnfinished(t *testing.T) {
	t.Parallel()
	b := start(t, anthropic.Options{})
	for _, extra := range []string{"", streaming} {
		_, got, err := b.raw(t, "/v1/messages", say("hi", extra), "encoding=gzip;cut=after:2")
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read: %v, want a cut connection", err)
		}
		if _, err := gunzip(got); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("gunzip: %v, want an early end", err)
		}
	}
}
