package web_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/web"
)

// generous are limits that no test reaches by accident.
func generous() web.Limits {
	return web.Limits{BodyMemory: 256 << 20, BodyTime: time.Minute, BodyIdle: time.Minute, ClientTimeout: time.Minute}
}

// raw sends bytes over a connection of its own, keeps it open and reads the
// answer.
func (s *stand) raw(request string) (*http.Response, string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.proxy.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() }) // the test is over
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body) // what arrived is compared
	return resp, string(text)
}

func head(more string) string {
	return "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Api-Key: " + virtualKey + "\r\nContent-Type: application/json\r\n" + more + "\r\n"
}

func TestABodyThatDoesNotArriveIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*web.Limits){
		"in all":  func(l *web.Limits) { l.BodyTime = 50 * time.Millisecond },
		"a pause": func(l *web.Limits) { l.BodyIdle = 50 * time.Millisecond },
	} {
		limits := generous()
		edit(&limits)
		s := newStandWithin(t, limits, nil, nil)
		resp, text := s.raw(head("Content-Length: 1000\r\n") + `{"model":`)
		if resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(text, "did not arrive in time") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
}

func TestALengthThatIsOnlyClaimedTakesNoMemory(t *testing.T) {
	t.Parallel()
	limits := generous()
	limits.BodyMemory = 100 << 10
	s := newStandWithin(t, limits, nil, nil)
	for range 5 { // they never send the 20 MB that they promise
		conn, err := net.Dial("tcp", s.proxy.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // the test is over
		if _, err := io.WriteString(conn, head("Content-Length: 20000000\r\n")+"{"); err != nil {
			t.Fatal(err)
		}
	}
	if resp := s.post(body(true, "")); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	resp := s.post(body(true, strings.Repeat("x", 200<<10)))
	if text := read(t, resp); resp.StatusCode != 503 || !strings.Contains(text, "overloaded_error") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestBodyMemoryComesFreeAgain(t *testing.T) {
	t.Parallel()
	limits := generous()
	limits.BodyMemory = 300 << 10
	s := newStandWithin(t, limits, nil, nil)
	for range 20 {
		if resp := s.post(body(true, strings.Repeat("x", 100<<10))); resp.StatusCode != 200 {
			t.Fatalf("status %d", resp.StatusCode)
		} else {
			read(t, resp)
		}
	}
}

func TestHostileBodies(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	nested := strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20)
	for name, row := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"nothing":               {"", 400, "empty"},
		"a NUL byte":            {"{\"model\":\"claude-haiku-4-5\x00\"}", 400, "not valid JSON"},
		"an escaped NUL":        {`{"model":"claude-haiku-4-5\u0000","max_tokens":5}`, 404, "model"},
		"a million levels":      {`{"model":"claude-haiku-4-5","max_tokens":5,"x":` + nested + `}`, 400, "not valid JSON"},
		"two models":            {`{"model":"claude-haiku-4-5","model":"claude-opus-5-5"}`, 400, "given twice"},
		"a huge number":         {`{"model":"claude-haiku-4-5","max_tokens":99999999999999999999}`, 400, "max_tokens"},
		"33 MB":                 {`{"model":"claude-haiku-4-5","x":"` + strings.Repeat("x", 33<<20) + `"}`, 413, "32 MB"},
		"a model of a megabyte": {`{"model":"` + strings.Repeat("x", 1<<20) + `"}`, 404, "model"},
	} {
		resp := s.post(row.body)
		var got struct {
			Type  string
			Error struct{ Type, Message string }
		}
		text := read(t, resp)
		if err := json.Unmarshal([]byte(text), &got); err != nil || resp.StatusCode != row.status || got.Type != "error" || !strings.Contains(got.Error.Message, row.says) {
			t.Errorf("%s: %d %.300s", name, resp.StatusCode, text)
		}
		if len(text) > 2000 {
			t.Errorf("%s: an error of %d bytes", name, len(text))
		}
	}
	if rows := s.countRows(); rows != 0 {
		t.Errorf("%d rows", rows)
	}
}

func TestBadFraming(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	for name, request := range map[string]string{
		"two lengths":    head("Content-Length: 5\r\nContent-Length: 6\r\n") + "{}",
		"a bad chunk":    head("Transfer-Encoding: chunked\r\n") + "zz\r\n{}\r\n0\r\n\r\n",
		"no such length": head("Content-Length: -1\r\n"),
		"a header bomb":  head("X-Bomb: " + strings.Repeat("x", 2<<20) + "\r\n"),
		"a bad header":   head("Bad Name: x\r\n"),
	} {
		if resp, text := s.raw(request); resp.StatusCode < 400 || resp.StatusCode > 499 {
			t.Errorf("%s: %d %.200s", name, resp.StatusCode, text)
		}
	}
}

func TestTenThousandToolsAndALargeImage(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	var tools bytes.Buffer
	for n := range 10_000 {
		if n > 0 {
			tools.WriteByte(',')
		}
		fmt.Fprintf(&tools, `{"name":"tool_%d","input_schema":{"type":"object"}}`, n)
	}
	for _, request := range []string{
		`{"model":"claude-opus-5-5","max_tokens":5,"tool_choice":{"type":"none"},"tools":[` + tools.String() + `],"messages":[{"role":"user","content":"x"}]}`,
		`{"model":"claude-opus-5-5","max_tokens":5,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` +
			strings.Repeat("QUJD", 1<<20) + `"}},{"type":"text","text":"x"}]}]}`,
	} {
		resp := s.post(request)
		if text := read(t, resp); resp.StatusCode != 200 {
			t.Errorf("%d %.300s", resp.StatusCode, text)
		}
		last := s.sim.Requests()[len(s.sim.Requests())-1]
		if last.BodyLength != len(request) {
			t.Errorf("the upstream got %d bytes of %d", last.BodyLength, len(request))
		}
	}
}

// TestAClientThatTakesNothingIsGivenUp has a client read no byte of a long
// answer: the write to it ends, and so does the upstream call.
func TestAClientThatTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	limits := generous()
	limits.ClientTimeout = 100 * time.Millisecond
	s := newStandWithin(t, limits, nil, nil)
	s.post(body(true, "[[sim:huge=60000000]]")) // nobody reads it
	if row := s.row(); row.Status != ledger.Aborted || row.Cost == 0 {
		t.Errorf("row %+v", row)
	}
}

// TestARevokedKeyNeedNotReadItsEnd revokes the key of a client that reads
// nothing: the request ends all the same.
func TestARevokedKeyNeedNotReadItsEnd(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	resp := s.post(body(true, "[[sim:huge=60000000]]"))
	readUntil(t, resp.Body, "message_start")
	s.running.Stop([]string{"key_1"}, nil, 9, "revoked")
	if row := s.row(); row.Status != ledger.Stopped {
		t.Errorf("row %+v", row)
	}
}

// TestWhatWasVerifiedBeforeTheWatchBeganMayNotBegin has the watch of stops begin
// at a revision: whether the key was stopped before cannot be known, so the client
// tries again. What runs is told, and stops of before do not count any more.
func TestWhatWasVerifiedBeforeTheWatchBeganMayNotBegin(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	first := s.post(body(true, "[[sim:stall=after:1]]"))
	readUntil(t, first.Body, "content_block_delta")
	if keys := s.running.From(0); len(keys) != 1 || keys[0].KeyID != "key_1" {
		t.Errorf("what runs has the keys %v, want key_1 once", keys)
	}
	s.running.Stop([]string{"key_1"}, nil, 9, "revoked")
	read(t, first)
	s.row()
	for _, tt := range []struct {
		began  int64
		status int
		retry  string
	}{{1, 503, "true"}, {0, 200, ""}} {
		s.running.From(tt.began)
		resp := s.post(body(true, ""))
		if text := read(t, resp); resp.StatusCode != tt.status || resp.Header.Get("X-Should-Retry") != tt.retry {
			t.Errorf("a key of revision 0 once the watch began at %d: %d %s, want %d", tt.began, resp.StatusCode, text, tt.status)
		}
	}
}
