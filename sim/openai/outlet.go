package openai

import (
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/proliferate-ai/llm-proxy/kit/sse"
)

// outlet is where an answer goes, compressed if its script wants that.
type outlet struct {
	w  http.ResponseWriter
	gz *gzip.Writer
}

// compress makes everything that is written from now on gzip. It must come
// before the header is written.
func (o *outlet) compress() {
	o.w.Header().Set("content-encoding", "gzip")
	o.w.Header().Add("vary", "Accept-Encoding")
	o.gz = gzip.NewWriter(o.w)
}

// Write writes p, which may stay in the compressor until flush.
func (o *outlet) Write(p []byte) (int, error) {
	if o.gz != nil {
		return o.gz.Write(p)
	}
	return o.w.Write(p)
}

// flush sends what was written. A client that is gone is errAborted.
func (o *outlet) flush() error {
	if o.gz != nil && o.gz.Flush() != nil {
		return errAborted
	}
	if http.NewResponseController(o.w).Flush() != nil {
		return errAborted
	}
	return nil
}

// event sends one event at once.
func (o *outlet) event(name string, data []byte) error {
	if err := sse.Write(o, name, data); err != nil {
		return errAborted
	}
	return o.flush()
}

// json answers 200 with body, or with half of it if cut, which is then errCut.
func (o *outlet) json(body []byte, cut bool) error {
	o.w.Header().Set("content-type", "application/json")
	if o.gz == nil {
		o.w.Header().Set("content-length", strconv.Itoa(len(body)))
	}
	if cut {
		_, _ = o.Write(body[:len(body)/2])
		o.drop()
		return errCut
	}
	if _, err := o.Write(body); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// close ends a compressed answer, unless err says that its connection is gone.
func (o *outlet) close(err error) {
	if o.gz != nil && !errors.Is(err, errCut) {
		_ = o.gz.Close()
	}
}

// drop closes the client's connection in the middle of the answer, after what
// was written has left. It needs HTTP/1, which all clients of the API speak when
// there is no TLS.
func (o *outlet) drop() {
	_ = o.flush()
	if conn, _, err := http.NewResponseController(o.w).Hijack(); err == nil {
		_ = conn.Close()
	}
}
