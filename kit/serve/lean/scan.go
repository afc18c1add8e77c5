package lean

import (
	"bytes"
	"net/http"
	"strconv"
)

// scan looks over the raw head of a request as it arrives, line by line, each
// once. It does not parse; it decides who does.
type scan struct {
	at             int // where the next line begins
	handler        http.Handler
	length         int64 // Content-Length
	hosts, lengths int   // how many such lines there were
	sawRequestLine bool
}

type verdict int

const (
	unsure verdict = iota // the head is not whole yet
	ours                  // a plain POST to a hot route; its head ends at scan.at
	theirs                // anything else
)

var opening = []byte("POST /")

// more takes a request from its first byte to what has arrived. Ours is only
//
//	POST hot-path[?query] HTTP/1.1, lines that end in CRLF, no line that
//	continues another, no control characters, one Host, one Content-Length in
//	digits, and nothing that changes how the message is framed or what it means.
func (s *scan) more(b []byte, hot map[string]http.Handler) verdict {
	if n := min(len(b), len(opening)); !bytes.Equal(b[:n], opening[:n]) {
		return theirs
	}
	for {
		n := bytes.IndexByte(b[s.at:], '\n')
		if n < 0 {
			return unsure
		}
		line := b[s.at : s.at+n]
		s.at += n + 1
		if n == 0 || line[n-1] != '\r' {
			return theirs
		}
		line = line[:n-1]
		switch {
		case !s.sawRequestLine:
			if s.handler = route(line, hot); s.handler == nil {
				return theirs
			}
			s.sawRequestLine = true
		case len(line) == 0:
			if s.hosts != 1 || s.lengths != 1 {
				return theirs
			}
			return ours
		case !s.plain(line):
			return theirs
		}
	}
}

func route(line []byte, hot map[string]http.Handler) http.Handler {
	target, ok := bytes.CutSuffix(line[len(opening)-1:], []byte(" HTTP/1.1"))
	if !ok {
		return nil
	}
	for _, ch := range target {
		if ch <= ' ' || ch >= 0x7f {
			return nil
		}
	}
	path, _, _ := bytes.Cut(target, []byte("?"))
	return hot[string(path)]
}

// plain says whether a header line is one that any server reads alike.
func (s *scan) plain(line []byte) bool {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 {
		return false
	}
	for _, ch := range name {
		if !tokens[ch] {
			return false
		}
	}
	for _, ch := range value {
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return false
		}
	}
	is := func(known string) bool { return len(name) == len(known) && bytes.EqualFold(name, []byte(known)) }
	switch len(name) {
	case len("host"):
		if is("host") {
			s.hosts++
			return plainHost(bytes.TrimSpace(value))
		}
	case len("content-length"): // as long as http2-settings
		if is("content-length") {
			s.lengths++
			return s.setLength(bytes.TrimSpace(value))
		}
		return !is("http2-settings")
	case len("connection"):
		return !is("connection") || bytes.EqualFold(bytes.TrimSpace(value), []byte("keep-alive"))
	case len("expect"):
		return !is("expect")
	case len("upgrade"): // as long as trailer
		return !is("upgrade") && !is("trailer")
	case len("transfer-encoding"):
		return !is("transfer-encoding")
	case len("x-http-method-override"): // grpc-gateway heeds it
		return !is("x-http-method-override")
	}
	return true
}

func (s *scan) setLength(value []byte) bool {
	for _, ch := range value {
		if ch < '0' || ch > '9' {
			return false
		}
	}
	var err error
	s.length, err = strconv.ParseInt(string(value), 10, 64)
	return err == nil
}

func plainHost(value []byte) bool {
	for _, ch := range value {
		if !alnum(ch) && ch != '.' && ch != '-' && ch != ':' && ch != '_' && ch != '[' && ch != ']' {
			return false
		}
	}
	return len(value) > 0
}

func alnum(ch byte) bool {
	return '0' <= ch && ch <= '9' || 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z'
}

// tokens are the characters of header names (RFC 9110, section 5.6.2).
var tokens = func() (set [256]bool) {
	for ch := range set {
		set[ch] = alnum(byte(ch)) || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(ch)) >= 0
	}
	return set
}()
