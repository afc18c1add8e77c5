package lean

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/head"
)

// parse makes of a head that is ours what http.ReadRequest would, without a body.
func parse(ctx context.Context, text []byte) (*http.Request, error) {
	line, rest, _ := strings.Cut(string(text), "\r\n")
	target := line[len("POST ") : len(line)-len(" HTTP/1.1")]
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	lines := head.Parse(strings.TrimSuffix(rest, "\r\n"), 0)
	h := header(lines)
	req := (&http.Request{
		Method: http.MethodPost, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Host: lines.Get("Host"), RequestURI: target,
	}).WithContext(ctx)
	if first(h["Pragma"]) == "no-cache" && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-cache"}
	}
	req.ContentLength, err = strconv.ParseInt(lines.Get("Content-Length"), 10, 64)
	return req, err
}

// header makes of lines what net/http has, which keeps the host elsewhere.
func header(lines head.Lines) http.Header {
	n := len(lines) - 1 // without the host
	h, values := make(http.Header, n), make([]string, 0, n)
	for _, l := range lines {
		if l.Name == "Host" {
			continue
		}
		if before := h[l.Name]; before != nil {
			h[l.Name] = append(before, l.Value)
			continue
		}
		values = append(values, l.Value)
		h[l.Name] = values[len(values)-1 : len(values) : len(values)]
	}
	return h
}
