package web_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
)

// recording is an answer as an upstream gave it: testdata/NAME.http is its head,
// a blank line and its body, in which a line "~~~" ends what is sent at once.
type recording struct {
	status int
	header http.Header
	pieces []string
}

func readRecording(t *testing.T, name string) recording {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(text), "\n\n")
	r := recording{header: http.Header{}}
	for i, line := range strings.Split(head, "\n") {
		if i == 0 {
			fmt.Sscanf(line, "%d", &r.status) //nolint:errcheck // 0 is found below
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		r.header.Add(name, value)
	}
	r.pieces = strings.Split(body, "~~~\n")
	return r
}

// replay is an upstream that gives a recorded answer, and waits after each piece
// until the client has it: what comes late, or together, never comes.
type replay struct {
	recording
	got  chan struct{} // the client has the next piece
	seen chan recorded
}

// recorded is a request as the upstream got it.
type recorded struct {
	path, query string
	header      http.Header
	body        []byte
}

func (r *replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body) // what is missing shows in the comparison
	r.seen <- recorded{req.URL.Path, req.URL.RawQuery, req.Header, body}
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	for _, piece := range r.pieces {
		io.WriteString(w, piece) //nolint:errcheck // the client compares
		http.NewResponseController(w).Flush()
		if r.header.Get("Content-Length") == "" && len(r.pieces) > 1 {
			select {
			case <-r.got:
			case <-req.Context().Done():
				return
			}
		}
	}
}

// TestGolden replays recorded pairs of requests and answers, once to a client
// that calls the upstream itself and once through the proxy: the upstream gets
// the same bytes, the client gets the same bytes, and each piece arrives before
// the upstream sends the next one.
func TestGolden(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*.http")
	if err != nil || len(names) < 6 {
		t.Fatalf("%d recordings, %v", len(names), err)
	}
	for _, path := range names {
		name := strings.TrimSuffix(filepath.Base(path), ".http")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			up := &replay{recording: readRecording(t, name), got: make(chan struct{}), seen: make(chan recorded, 1)}
			s := newStandBefore(t, up, nil)
			direct := s.exchange(up, s.upstream.URL, realKey, request)
			proxied := s.exchange(up, s.proxy.URL, virtualKey, request)
			if diff := cmp.Diff(direct, proxied, cmp.AllowUnexported(exchanged{}, recorded{})); diff != "" {
				t.Errorf("the proxy shows (-direct +proxied):\n%s", diff)
			}
			whole := up.status == 200 && !strings.Contains(direct.body, "event: error")
			if row := s.row(); (row.Status == ledger.Completed) != whole {
				t.Errorf("row %+v", row)
			}
		})
	}
}

// exchanged is one call as both sides saw it.
type exchanged struct {
	request recorded
	status  int
	header  http.Header
	body    string
}

// exchange makes a call that Claude Code might make and takes the answer piece by
// piece.
func (s *stand) exchange(up *replay, url, key string, request []byte) exchanged {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, url+"/v1/messages?beta=true&x=%2F", bytes.NewReader(request))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "X-Api-Key": {key}, "Anthropic-Version": {"2026-10-21"},
		"Anthropic-Beta": {"claude-code-20250219,unknown-2099-01-01"}, "Anthropic-Unheard-Of": {"yes"},
		"User-Agent": {"claude-cli/2.1.330 (external, sdk-cli)"}, "X-App": {"cli"}, "X-Stainless-Retry-Count": {"0"},
		"Anthropic-Dangerous-Direct-Browser-Access": {"true"}, "Accept": {"application/json"}, "Accept-Encoding": {"identity"},
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() // read to its end
	var got bytes.Buffer
	if up.header.Get("Content-Length") == "" && len(up.pieces) > 1 {
		// The last piece holds the end of the answer, which waits for the ledger.
		for _, piece := range up.pieces {
			if _, err := io.CopyN(&got, resp.Body, int64(len(piece))); err != nil {
				s.t.Fatalf("after %q: %v", got.String(), err)
			}
			up.got <- struct{}{}
		}
	}
	if _, err := got.ReadFrom(resp.Body); err != nil {
		s.t.Fatal(err)
	}
	e := exchanged{request: <-up.seen, status: resp.StatusCode, header: resp.Header, body: got.String()}
	e.request.header.Del("X-Api-Key") // the real one
	for name := range e.header {
		if slices.Contains(ours, name) || slices.Contains(theirs, name) {
			delete(e.header, name)
		}
	}
	return e
}

// ours are the headers that the proxy adds, theirs those that it keeps back.
var (
	ours   = []string{"X-Llmproxy-Request-Id", "X-Litellm-Call-Id", "X-Litellm-Model-Id", "X-Litellm-Key-Spend", "X-Litellm-Response-Cost", "Content-Length", "Date"}
	theirs = []string{"Anthropic-Organization-Id", "Anthropic-Ratelimit-Requests-Limit", "Set-Cookie", "Server", "Cf-Ray", "Via"}
)

// TestACompressedStreamIsMetered has the upstream compress: the client gets the
// bytes as they were sent, as they are sent, and the usage is the simulator's.
func TestACompressedStreamIsMetered(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{true, false} {
		s := newStand(t, nil)
		resp := s.post(body(stream, "[[sim:encoding=gzip]]"))
		if resp.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("the client got %q", resp.Header.Get("Content-Encoding"))
		}
		plain, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(plain)
		if err != nil || !strings.Contains(string(text), "output_tokens") || stream && !strings.Contains(string(text), "message_stop") {
			t.Errorf("%v, the client got %s", err, text)
		}
		row := s.row()
		if row.Status != ledger.Completed || row.Estimated {
			t.Errorf("row %+v", row)
		}
		s.checkUsage(row)
	}
}

func TestACompressedErrorPassesUnchanged(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(true, "[[sim:encoding=gzip;error=529]]"))
	plain, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(plain)
	if err != nil || resp.StatusCode != 529 || !strings.Contains(string(text), "overloaded_error") {
		t.Errorf("%d %s, %v", resp.StatusCode, text, err)
	}
	if row := s.row(); row.ErrorType != "overloaded_error" || row.Cost != 0 {
		t.Errorf("row %+v", row)
	}
}

func TestAnUnreadableStreamPassesAndCostsTheWorst(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(true, "[[sim:encoding=br]]"))
	text := []byte(read(t, resp))
	for i := range text {
		text[i] ^= 0x80 // the simulator's unreadable encoding
	}
	if !strings.HasSuffix(strings.TrimSpace(string(text)), `{"type":"message_stop"      }`) {
		t.Errorf("the client got %q", text)
	}
	if row := s.row(); row.Status != ledger.Completed || !row.Estimated || row.Cost == 0 {
		t.Errorf("row %+v", row)
	}
}

// TestOddStreamsPassByteForByte compares what a client gets through the proxy
// with what it gets from the simulator itself, for streams that no well-behaved
// server sends.
func TestOddStreamsPassByteForByte(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		"malformed=after:1", "trickle=1", "trickle=7;say=Žluťoučký kůň 🐴 pěl", "huge=3000000;output_tokens=20", "stall_pings=after:1;stall_pings_ms=100",
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, nil)
			request := body(true, "[[sim:"+script+"]]")
			proxied := read(t, s.post(request))
			row := s.row()
			s.checkUsage(row)
			direct := read(t, s.send(t.Context(), s.upstream.URL, realKey, "/v1/messages", request))
			if a, b := withoutPings(withoutID(direct)), withoutPings(withoutID(proxied)); a != b {
				i := 0
				for i < min(len(a), len(b)) && a[i] == b[i] {
					i++
				}
				t.Errorf("%d bytes directly, %d through the proxy; they differ at %d: %q and %q", len(a), len(b), i, cut(a, i), cut(b, i))
			}
		})
	}
}

var messageID = regexp.MustCompile(`msg_\w+`)

func withoutPings(text string) string {
	return strings.ReplaceAll(messageID.ReplaceAllString(text, "msg"), "event: ping\ndata: {\"type\": \"ping\"}\n\n", "")
}

func cut(s string, i int) string { return s[max(0, i-20):min(len(s), i+40)] }
