package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/serve/lean"
)

// readPlain reads the beginning of an answer that any client reads alike, as
// http.ReadResponse would at three times the cost: its head is there in one piece,
// and its end is told by one Content-Length or by chunks. Nil: it is another one, of which
// nothing was taken. body is what it is read by.
func readPlain(in *input, body *plainBody) *http.Response {
	if in.more() != nil {
		return nil
	}
	head := in.has()
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		return nil
	}
	line, rest, _ := strings.Cut(string(head[:end+2]), "\r\n")
	status, ok := plainStatus(line)
	if !ok {
		return nil
	}
	h, length := plainHeader(rest)
	if h == nil {
		return nil
	}
	in.r += end + 4
	resp := &http.Response{
		Status: line[len("HTTP/1.1 "):], StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, ContentLength: length, Body: http.NoBody,
	}
	switch {
	case length < 0:
		body.chunks = chunks{in: in}
		resp.Body, resp.TransferEncoding = &body.chunks, chunked
	case length > 0:
		body.in, body.left = in, length
		resp.Body = body
	}
	return resp
}

// moreHeaders is how many the pipeline adds to an answer: the map need not grow then.
const moreHeaders = 8

// plainStatus reads a status line. Not ok: it is odd, or its answer has no body
// whatever its header says.
func plainStatus(line string) (status int, ok bool) {
	code, found := strings.CutPrefix(line, "HTTP/1.1 ")
	if !found || len(code) < 5 || code[3] != ' ' || !plain([]byte(code)) {
		return 0, false
	}
	status, err := strconv.Atoi(code[:3])
	return status, err == nil && status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// changing are the headers that change how the answer, or its connection, is to be read.
var changing = [...]string{"Connection", "Trailer", "Upgrade", "Pragma"}

// chunked is the one transfer encoding that is read here.
var chunked = []string{"chunked"}

// plainHeader reads header lines. A length of -1 means chunks. Nil: one of the lines is
// odd, or changes how the answer is to be read.
func plainHeader(lines string) (h http.Header, length int64) {
	for line := range strings.SplitSeq(strings.TrimSuffix(lines, "\r\n"), "\r\n") {
		if name, _, ok := strings.Cut(line, ":"); !ok || !isToken(name) || !plain([]byte(line)) {
			return nil, 0
		}
	}
	h = lean.Header(lines, moreHeaders)
	for _, name := range changing {
		if h[name] != nil {
			return nil, 0
		}
	}
	lengths, encodings := h["Content-Length"], h["Transfer-Encoding"]
	if len(lengths) == 0 && slices.Equal(encodings, chunked) {
		delete(h, "Transfer-Encoding") // as net/http has it
		return h, -1
	}
	if len(encodings) > 0 || len(lengths) != 1 || strings.Trim(lengths[0], "0123456789") != "" {
		return nil, 0
	}
	length, err := strconv.ParseInt(lengths[0], 10, 64)
	if err != nil {
		return nil, 0
	}
	return h, length
}

// isToken says whether a name is one of letters, digits, hyphens and underscores.
func isToken(name string) bool {
	for _, ch := range []byte(name) {
		if (ch < '0' || ch > '9') && (ch|0x20 < 'a' || ch|0x20 > 'z') && ch != '-' && ch != '_' {
			return false
		}
	}
	return name != ""
}

// plainBody is so many bytes, or it is cut; or it is in chunks.
type plainBody struct {
	in     *input
	left   int64
	chunks chunks
}

// Read implements io.Reader. The last bytes come with io.EOF.
func (b *plainBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		err = io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (*plainBody) Close() error { return nil }
