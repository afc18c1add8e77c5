package lean

import (
	"context"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// parse makes of a head that is ours what http.ReadRequest would, without a body.
func parse(ctx context.Context, head []byte) (*http.Request, error) {
	line, rest, _ := strings.Cut(string(head), "\r\n")
	target := line[len("POST ") : len(line)-len(" HTTP/1.1")]
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	h := Header(strings.TrimSuffix(rest, "\r\n"), 0)
	req := (&http.Request{
		Method: http.MethodPost, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Host: first(h, "Host"), RequestURI: target,
	}).WithContext(ctx)
	delete(h, "Host")
	if p := h["Pragma"]; len(p) > 0 && p[0] == "no-cache" && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-cache"}
	}
	req.ContentLength, err = strconv.ParseInt(first(h, "Content-Length"), 10, 64)
	return req, err
}

// Header makes a header of lines, each NAME:VALUE with CRLF behind it, as net/http reads
// them, with room for so many more. It does not look whether a name or a value has
// characters that it may not have.
func Header(lines string, more int) http.Header {
	n := strings.Count(lines, "\n")
	h, values := make(http.Header, n+more), make([]string, 0, n)
	for lines != "" {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
		if before := h[name]; before != nil {
			h[name] = append(before, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return h
}
