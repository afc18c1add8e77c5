package lean

import (
	"net"
	"strings"
	"testing"
)

// exchanges are what is sent to both servers; ours says how many requests are to
// be served past net/http.
var exchanges = map[string]struct {
	send string
	ours int
	slow bool // byte by byte
	half bool // the client's side is closed then
}{
	"a plain request":                   {send: post("hello"), ours: 1},
	"without a body":                    {send: post(""), ours: 1},
	"with a query":                      {send: strings.Replace(post("x"), hotPath, hotPath+"?beta=true&x=%20#y", 1), ours: 1},
	"a bad query":                       {send: strings.Replace(post("x"), hotPath, hotPath+"?a=%zz;b", 1), ours: 1},
	"two on one connection":             {send: post("one") + post("two"), ours: 2},
	"three and another in between":      {send: post("one") + get("/x") + post("two")},
	"blank lines after a body":          {send: post("one") + "\r\n" + post("two"), ours: 2},
	"many blank lines after a body":     {send: post("one") + "\r\n\r\n\r\n\r\n" + post("two"), ours: 1},
	"three bytes after an answer":       {send: post("one") + "\r\no", ours: 1, half: true},
	"four bytes after an answer":        {send: post("one") + "\r\nPO", ours: 1, half: true},
	"blank lines first":                 {send: "\r\n" + post("one")},
	"headers in any case":               {send: post("x", "hOsT2: y", "x-API-key: k", "X-Many: 1", "X-Many: 2", "Connection: Keep-Alive"), ours: 1},
	"a large body":                      {send: post(strings.Repeat("body ", 100_000)), ours: 1},
	"slow":                              {send: post("one", "X-A: b") + post("two"), ours: 2, slow: true},
	"slow and cold":                     {send: get("/cold") + post("x"), slow: true},
	"a body that ends early":            {send: strings.TrimSuffix(post("hello"), "llo"), ours: 1, half: true},
	"a head that ends early":            {send: "POST " + hotPath + " HTTP/1.1\r\nHost: x\r\nConte", half: true},
	"a request line that ends early":    {send: "POST " + hotPath + " HT", half: true},
	"nothing":                           {half: true},
	"another path":                      {send: strings.Replace(post("x"), hotPath, hotPath+"/", 1)},
	"an escaped path":                   {send: strings.Replace(post("x"), hotPath, "/v1/m%65ssages", 1)},
	"a whole address":                   {send: strings.Replace(post("x"), hotPath, "http://x"+hotPath, 1)},
	"GET":                               {send: get(hotPath)},
	"HEAD":                              {send: "HEAD " + hotPath + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
	"lower case":                        {send: strings.Replace(post("x"), "POST", "post", 1)},
	"HTTP/1.0":                          {send: strings.Replace(post("x"), "HTTP/1.1", "HTTP/1.0", 1)},
	"HTTP/1.0 that goes on":             {send: strings.Replace(post("x", "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1) + post("y")},
	"HTTP/1.2":                          {send: strings.Replace(post("x"), "HTTP/1.1", "HTTP/1.2", 1)},
	"HTTP/2":                            {send: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", half: true},
	"TLS":                               {send: "\x16\x03\x01\x02\x00\x01\x00\x01", half: true},
	"no Host":                           {send: strings.Replace(post("x"), "Host: x\r\n", "", 1)},
	"an empty Host":                     {send: strings.Replace(post("x"), "Host: x", "Host:", 1)},
	"two Hosts":                         {send: post("x", "Host: y")},
	"a bad Host":                        {send: strings.Replace(post("x"), "Host: x", "Host: a b", 1)},
	"no Content-Length":                 {send: "POST " + hotPath + " HTTP/1.1\r\nHost: x\r\n\r\n"},
	"two Content-Lengths":               {send: post("hello", "Content-Length: 4")},
	"two equal Content-Lengths":         {send: post("hello", "Content-Length: 5")},
	"a list of Content-Lengths":         {send: strings.Replace(post("hello"), "Length: 5", "Length: 5, 5", 1)},
	"a signed Content-Length":           {send: strings.Replace(post("hello"), "Length: 5", "Length: +5", 1)},
	"a Content-Length of nothing":       {send: strings.Replace(post("hello"), "Length: 5", "Length:", 1)},
	"a Content-Length without end":      {send: strings.Replace(post("hello"), "Length: 5", "Length: 99999999999999999999", 1)},
	"chunked":                           {send: "POST " + hotPath + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + post("x")},
	"chunked and a length":              {send: "POST " + hotPath + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + post("x")},
	"a length and chunked":              {send: post("0\r\n\r\n", "Transfer-Encoding: chunked")},
	"an unknown encoding":               {send: post("hello", "Transfer-Encoding: odd")},
	"Expect: 100-continue":              {send: post("hello", "Expect: 100-continue", "Connection: close")},
	"Expect: something else":            {send: post("hello", "Expect: more")},
	"Upgrade":                           {send: post("hello", "Connection: Upgrade", "Upgrade: websocket", "Connection: close")},
	"a trailer":                         {send: post("hello", "Trailer: X-Y")},
	"Connection: close":                 {send: post("hello", "Connection: close")},
	"Connection with a list":            {send: post("hello", "Connection: keep-alive, close")},
	"another method is meant":           {send: post("hello", "X-HTTP-Method-Override: GET")},
	"bare line ends":                    {send: strings.ReplaceAll(post("hello"), "\r\n", "\n")},
	"one bare line end":                 {send: post("hello", "X-A: b\nX-C: d")},
	"a bare carriage return":            {send: post("hello", "X-A: b\rc")},
	"a continued line":                  {send: post("hello", "X-A: b", " c")},
	"a continued first line":            {send: strings.Replace(post("hello"), "Host", " Host", 1)},
	"a space before the colon":          {send: post("hello", "X-A : b")},
	"a header without a name":           {send: post("hello", ": b")},
	"a header without a colon":          {send: post("hello", "X-A")},
	"a bad name":                        {send: post("hello", "X(A): b")},
	"a control character":               {send: post("hello", "X-A: b\x01c")},
	"text that is not ASCII":            {send: post("hello", "X-A: ä"), ours: 1},
	"two spaces in the request line":    {send: strings.Replace(post("x"), " HTTP", "  HTTP", 1)},
	"a tab in the request line":         {send: strings.Replace(post("x"), " HTTP", "\tHTTP", 1)},
	"a space at the request line's end": {send: strings.Replace(post("x"), "HTTP/1.1", "HTTP/1.1 ", 1)},
	"a head of 15 KB":                   {send: post("hello", "X-A: "+strings.Repeat("a", 15_000)), ours: 1},
	"a head of 15 KB that comes second": {send: post(strings.Repeat("z", 9_000), "X-Do: empty") + post("hello", "X-A: "+strings.Repeat("a", 15_000)), ours: 2},
	"a head of 40 KB":                   {send: post("hello", "X-A: "+strings.Repeat("a", 40_000))},
	"a head of 80 KB":                   {send: post("hello", "X-A: "+strings.Repeat("a", 80_000))},
	"a target of 20 KB":                 {send: strings.Replace(post("x"), hotPath, hotPath+"?"+strings.Repeat("a", 20_000), 1)},
	"an answer before the body":         {send: post("hello", "X-Do: early") + post("next"), ours: 2},
	"an answer before a large body":     {send: post(strings.Repeat("x", 300_000), "X-Do: early"), ours: 1},
	"an answer before a middling body":  {send: post(strings.Repeat("x", 200_000), "X-Do: early") + post("next"), ours: 2},
	"an answer without a body":          {send: post("x", "X-Do: empty") + post("next"), ours: 2},
	"204":                               {send: post("x", "X-Do: nothing") + post("next"), ours: 2},
	"304":                               {send: post("x", "X-Do: unmodified") + post("next"), ours: 2},
	"a length of the handler's":         {send: post("x", "X-Do: length"), ours: 1},
	"an answer shorter than its length": {send: post("x", "X-Do: short"), ours: 1},
	"the handler closes":                {send: post("x", "X-Do: close"), ours: 1},
	"odd headers in the answer":         {send: post("x", "X-Do: odd") + post("next"), ours: 2},
	"flushed pieces":                    {send: post("x", "X-Do: flush") + post("next"), ours: 2},
	"pieces flushed at once":            {send: post("x", "X-Do: flush at once") + post("next"), ours: 2},
	"pieces of more than was said":      {send: post("x", "X-Do: flush more than was said") + post("next"), ours: 1},
	"an answer of 300 KB":               {send: post("x", "X-Do: large") + post("next"), ours: 2},
	"the handler gives up":              {send: post("x", "X-Do: abort"), ours: 1},
	"the handler panics":                {send: post("x", "X-Do: panic"), ours: 1},
}

// TestAnswersAreNetHTTPs sends the same bytes to both servers. Every exchange
// ends with a request that closes the connection, unless the server closes it.
func TestAnswersAreNetHTTPs(t *testing.T) {
	t.Parallel()
	for name, e := range exchanges {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			front, plain := start(t, true, echo), start(t, false, echo)
			got, want := front.all(e.send, e.slow, e.half), plain.all(e.send, e.slow, e.half)
			if got != want {
				t.Errorf("lean answers\n%.3000s\nnet/http\n%.3000s", got, want)
			}
			ours := e.ours
			if name == "three and another in between" {
				ours = 1 // what follows a hand-over is net/http's
			}
			if front.served() != ours {
				t.Errorf("%d were served past net/http, want %d", front.served(), ours)
			}
		})
	}
}

// all sends bytes and returns all answers, to the end of the connection.
func (s *stand) all(text string, slow, half bool) string {
	s.t.Helper()
	c := s.dial()
	text += "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if half {
		text = strings.TrimSuffix(text, "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	}
	sent := make(chan struct{})
	go func() { // the server may answer first, or hang up
		defer close(sent)
		if !slow {
			c.Write([]byte(text)) //nolint:errcheck // as above
		} else {
			for i := range len(text) {
				c.Write([]byte(text[i : i+1])) //nolint:errcheck // as above
			}
		}
		if half {
			c.Conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // as above
		}
	}()
	defer func() { <-sent }()
	var all strings.Builder
	for {
		answer, err := c.answer()
		all.WriteString(answer)
		if err != nil {
			if answer != "" {
				all.WriteString("\ncut off: " + err.Error())
			}
			return all.String()
		}
		all.WriteString("\n\n")
	}
}

// FuzzAnswersAreNetHTTPs compares what both make of any bytes.
func FuzzAnswersAreNetHTTPs(f *testing.F) {
	for _, e := range exchanges {
		if !strings.Contains(e.send, "X-Do") && len(e.send) < 1000 {
			f.Add([]byte(e.send))
		}
	}
	front, plain := start(f, true, echo), start(f, false, echo)
	f.Fuzz(func(t *testing.T, b []byte) {
		front, plain := *front, *plain
		front.t, plain.t = t, t
		got, want := front.all(string(b), false, true), plain.all(string(b), false, true)
		if strings.Contains(got+want, "reset by peer") {
			return // a connection that is closed with bytes unread may take its answer along
		}
		if got != want {
			t.Errorf("%q: lean answers\n%s\nnet/http\n%s", b, got, want)
		}
	})
}
