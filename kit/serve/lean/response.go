package lean

import (
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/kit/leash"
)

// holdSize is how much of an answer is held before it is sent by itself: what
// fits goes out whole, with a Content-Length, in one write.
const holdSize = 16 << 10

// sniffLen is what http.DetectContentType looks at.
const sniffLen = 512

// response is a request and its answer: an http.ResponseWriter with what
// http.ResponseController asks for.
type response struct {
	c     *conn
	ctx   leash.Leash  // of the request
	since atomic.Int64 // tick at which it began, or at which something was last sent
	body  body

	header  http.Header
	status  int   // 0 before WriteHeader
	length  int64 // Content-Length that the handler named; -1: none
	written int64 // bytes of the answer's body
	out     *output
	sent    bool // the head is out
	chunked bool
	over    bool // the handler has returned
	closing bool // the connection ends with this answer
	err     error

	// What WriteHeader saw, for the rest of the head.
	hasDate, hasType, encoded bool
	connection                []string
}

// cancel ends the request's context.
func (w *response) cancel() { w.ctx.End(nil) }

// output is what waits to be sent.
type output struct{ head, body []byte }

var outputs = sync.Pool{New: func() any { return new(output) }}

// Write and WriteString make it what http.Header writes to.
func (o *output) Write(p []byte) (int, error) {
	o.head = append(o.head, p...)
	return len(p), nil
}

func (o *output) WriteString(s string) (int, error) {
	o.head = append(o.head, s...)
	return len(s), nil
}

func (o *output) line(name, value string) {
	o.head = append(append(append(append(o.head, name...), ": "...), value...), "\r\n"...)
}

// handlers writes a line of the handler's, as http.Header does.
func (o *output) handlers(name, value string) {
	if plainLine(name, value) {
		o.line(name, value)
	} else {
		http.Header{name: {value}}.Write(o) //nolint:errcheck // to memory
	}
}

// plainLine says whether a header line needs no repair.
func plainLine(name, value string) bool {
	for i := range len(name) {
		if !tokens[name[i]] {
			return false
		}
	}
	for i := range len(value) {
		if value[i] == '\r' || value[i] == '\n' {
			return false
		}
	}
	return name != "" && len(value) == len(textproto.TrimString(value))
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter. Informational answers are not sent.
func (w *response) WriteHeader(status int) {
	if !w.begin(status) {
		return
	}
	w.connection = w.header["Connection"]
	for name, values := range w.header {
		if !w.notice(name, first(values)) {
			continue
		}
		for _, value := range values {
			w.out.handlers(name, value)
		}
	}
}

// WriteLines is WriteHeader with these lines as the header, instead of what was set
// before. What is said of the connection in them is left out.
func (w *response) WriteLines(status int, lines head.Lines) {
	if !w.begin(status) {
		return
	}
	for _, l := range lines {
		if w.notice(l.Name, l.Value) {
			w.out.handlers(l.Name, l.Value)
		}
	}
}

// begin writes the status line. False: nothing is to be sent.
func (w *response) begin(status int) bool {
	switch {
	case w.status != 0:
		w.c.srv.logf("http: superfluous response.WriteHeader call")
		return false
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status < 200:
		return false
	}
	w.status = status
	o := w.take()
	o.head = strconv.AppendInt(append(o.head, "HTTP/1.1 "...), int64(status), 10)
	o.head = append(o.head, ' ')
	if text := http.StatusText(status); text != "" {
		o.head = append(o.head, text...)
	} else {
		o.head = strconv.AppendInt(append(o.head, "status code "...), int64(status), 10)
	}
	o.head = append(o.head, "\r\n"...)
	return true
}

// notice takes in a header that decides about the rest of the head, or about the body.
// False: its lines are not written here. Those that frame the answer are written once
// all is known about it; trailers are not sent.
func (w *response) notice(name, value string) bool {
	switch name {
	case "Connection", "Transfer-Encoding", "Trailer":
		return false
	case "Content-Length":
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			w.length = n
		} else if value != "" {
			w.c.srv.logf("http: invalid Content-Length of %q", value)
		}
		return false
	case "Date":
		w.hasDate = true
	case "Content-Type":
		w.hasType = true
		return w.status != http.StatusNotModified
	case "Content-Encoding":
		w.encoded = value != ""
	}
	return true
}

func first(values []string) string {
	if len(values) > 0 {
		return values[0]
	}
	return ""
}

func (w *response) bodyAllowed() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if err := w.accept(p); err != nil || len(p) == 0 {
		return 0, err
	}
	o := w.take()
	if len(o.body)+len(p) <= holdSize {
		o.body = append(o.body, p...)
		return len(p), nil
	}
	if w.send(p, ""); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// WriteFlush is Write and then FlushError, in which p is copied once.
func (w *response) WriteFlush(p []byte) error {
	if err := w.accept(p); err != nil {
		return err
	}
	if len(p) == 0 {
		return w.FlushError()
	}
	w.send(p, "")
	return w.err
}

// accept says whether p may be written.
func (w *response) accept(p []byte) error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return nil
	case !w.bodyAllowed():
		return http.ErrBodyNotAllowed
	case w.err != nil:
		return w.err
	}
	w.written += int64(len(p))
	if w.length >= 0 && w.written > w.length {
		return http.ErrContentLength
	}
	return nil
}

// Flush implements http.Flusher.
func (w *response) Flush() { w.FlushError() } //nolint:errcheck // who wants the error asks FlushError

// FlushError sends what is held in one write.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.out != nil && w.err == nil {
		w.send(nil, "")
	}
	return w.err
}

// SetReadDeadline is for http.ResponseController: it bounds reads of the body.
func (w *response) SetReadDeadline(t time.Time) error { return w.c.reads.set(t) }

// SetWriteDeadline is for http.ResponseController.
func (w *response) SetWriteDeadline(t time.Time) error { return w.c.writes.set(t) }

// take returns the output, from the pool if nothing is held.
func (w *response) take() *output {
	if w.out == nil {
		w.out = outputs.Get().(*output)
	}
	return w.out
}

// free gives the output back, unless it grew out of proportion.
func (w *response) free() {
	if o := w.out; o != nil && cap(o.head) <= 4*holdSize {
		o.head, o.body = o.head[:0], o.body[:0]
		outputs.Put(o)
	}
	w.out = nil
}

// send sends what is held and p, in one write; end comes last. An error ends the
// request.
func (w *response) send(p []byte, end string) {
	o := w.take()
	if !w.sent {
		w.endHead(o, p)
		w.sent = true
	}
	if n := len(o.body) + len(p); w.chunked && n > 0 {
		o.head = append(strconv.AppendInt(o.head, int64(n), 16), "\r\n"...)
		end = "\r\n" + end
	}
	o.head = append(o.head, o.body...)
	err := w.c.writes.begin()
	switch {
	case err != nil:
	case len(p) <= holdSize:
		o.head = append(append(o.head, p...), end...)
		_, err = w.c.nc.Write(o.head)
	default:
		parts := net.Buffers{o.head, p, []byte(end)}
		_, err = parts.WriteTo(w.c.nc.Conn)
	}
	w.c.writes.end()
	w.free()
	if err != nil {
		w.err = err
		w.cancel()
		return
	}
	w.since.Store(w.c.srv.tick.Load())
}

// endHead completes the head: p is what follows the body that is held. Before
// anything is sent the request's body is read: some clients read no answer until
// they have sent it.
func (w *response) endHead(o *output, p []byte) {
	if w.over && w.length < 0 && w.bodyAllowed() {
		w.length = int64(len(o.body) + len(p))
		w.written = w.length
	}
	draining := w.c.srv.draining.Load()
	if draining || len(w.connection) > 0 && w.connection[0] == "close" {
		w.closing = true
	}
	if !w.closing && !w.body.drain() {
		w.closing = true
	}
	if w.bodyAllowed() && !w.hasType && !w.encoded && len(o.body)+len(p) > 0 {
		sample := append(o.body[:len(o.body):len(o.body)], p[:min(len(p), sniffLen)]...)
		o.line("Content-Type", http.DetectContentType(sample))
	}
	if w.closing {
		o.line("Connection", "close")
	} else if len(w.connection) > 0 {
		http.Header{"Connection": w.connection}.Write(o) //nolint:errcheck // to memory
	}
	switch {
	case !w.bodyAllowed():
	case w.length >= 0:
		o.head = append(strconv.AppendInt(append(o.head, "Content-Length: "...), w.length, 10), "\r\n"...)
	default:
		w.chunked = true
		o.line("Transfer-Encoding", "chunked")
	}
	if !w.hasDate {
		o.line("Date", w.c.srv.now())
	}
	o.head = append(o.head, "\r\n"...)
}

// finish sends the rest once the handler has returned, and says whether the
// connection can carry another request.
func (w *response) finish() bool {
	w.over = true
	w.body.Close()
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	end := ""
	if w.chunked {
		end = "0\r\n\r\n"
	}
	if w.err == nil && (w.out != nil || end != "") {
		w.send(nil, end)
	}
	w.free()
	// Fewer bytes than were announced, or a body that is not read: the other side
	// would take what comes next for the rest.
	again := w.err == nil && !w.closing && (w.length < 0 || w.length == w.written || !w.bodyAllowed()) && w.body.whole.Load()
	if !again && w.err == nil && !w.body.drain() && w.body.shut() {
		w.c.linger()
	}
	return again && !w.c.srv.draining.Load()
}

// abort ends the request without an end of its answer.
func (w *response) abort() {
	w.cancel()
	w.body.shut()
	w.free()
}
