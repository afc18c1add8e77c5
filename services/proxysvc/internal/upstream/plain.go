package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// readPlain reads the beginning of an answer that any client reads alike, as
// http.ReadResponse would at three times the cost: its head is there in one piece,
// and its end is told by one Content-Length or by chunks. Not ok: it is another one, of
// which nothing was taken. body is what it is read by.
func readPlain(in *input, body *plainBody) (b beginning, ok bool) {
	if in.more() != nil {
		return b, false
	}
	text := in.has()
	end := bytes.Index(text, []byte("\r\n\r\n"))
	if end < 0 {
		return b, false
	}
	line, rest, _ := strings.Cut(string(text[:end+2]), "\r\n")
	if b.status, ok = plainStatus(line); !ok {
		return b, false
	}
	if b.header, b.length, ok = plainHeader(rest); !ok {
		return b, false
	}
	in.r += end + 4
	b.body = http.NoBody
	switch {
	case b.length < 0:
		body.chunks = chunks{in: in}
		b.body = &body.chunks
	case b.length > 0:
		body.in, body.left = in, b.length
		b.body = body
	}
	return b, true
}

// plainStatus reads a status line. Not ok: it is odd, or its answer has no body
// whatever its header says.
func plainStatus(line string) (status int, ok bool) {
	code, found := strings.CutPrefix(line, "HTTP/1.1 ")
	if !found || len(code) < 5 || code[3] != ' ' || !plain(code) {
		return 0, false
	}
	status, err := strconv.Atoi(code[:3])
	return status, err == nil && status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// changing says whether a header changes how the answer, or its connection, is to be
// read.
func changing(name string) bool {
	switch name {
	case "Connection", "Trailer", "Upgrade", "Pragma":
		return true
	}
	return false
}

const encoding = "Transfer-Encoding"

// plainHeader reads header lines. A length of -1 means chunks. Not ok: one of the lines is
// odd, or changes how the answer is to be read.
func plainHeader(text string) (lines head.Lines, length int64, ok bool) {
	for rest := text; rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\r\n")
		if name, _, ok := strings.Cut(line, ":"); !ok || !isToken(name) || !plain(line) {
			return nil, 0, false
		}
	}
	lines = head.Parse(text, proxy.OurHeaders)
	lengths, encodings := 0, 0
	for _, l := range lines {
		switch {
		case changing(l.Name):
			return nil, 0, false
		case l.Name == "Content-Length":
			lengths++
			length, ok = digits(l.Value)
		case l.Name == encoding:
			encodings++
			ok = l.Value == "chunked"
		}
	}
	if encodings > 0 { // it is not among the headers, as net/http has it
		lines = slices.DeleteFunc(lines, func(l head.Line) bool { return l.Name == encoding })
		return lines, -1, ok && encodings == 1 && lengths == 0
	}
	return lines, length, ok && lengths == 1
}

// digits reads a number that has nothing but digits.
func digits(text string) (n int64, ok bool) {
	for _, ch := range []byte(text) {
		if ch < '0' || ch > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
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
