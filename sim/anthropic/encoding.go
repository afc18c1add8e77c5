package anthropic

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strconv"
)

// outlet is the way of a stream's events to the client: each is encoded, cut
// into pieces if the script wants that, and flushed.
type outlet struct {
	w        http.ResponseWriter
	encoding string
	piece    int // most bytes between two flushes; zero: any

	held bytes.Buffer // compressed bytes that are to be written
	gzip *gzip.Writer // writes to held
}

func newOutlet(w http.ResponseWriter, encoding string, piece int) *outlet {
	o := &outlet{w: w, encoding: encoding, piece: piece}
	if encoding == "gzip" {
		o.gzip = gzip.NewWriter(&o.held)
	}
	return o
}

// send writes an event so that the client can decode it on arrival.
func (o *outlet) send(event []byte) error {
	switch o.encoding {
	case "gzip":
		if _, err := o.gzip.Write(event); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		if err := o.gzip.Flush(); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		event = o.held.Bytes()
		defer o.held.Reset()
	case "br":
		event = opaque(event)
	}
	return o.write(event)
}

// end writes what the encoding has at the end of a whole stream.
func (o *outlet) end() error {
	if o.encoding != "gzip" {
		return nil
	}
	if err := o.gzip.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return o.write(o.held.Bytes())
}

func (o *outlet) write(p []byte) error {
	for len(p) > 0 {
		n := len(p)
		if o.piece > 0 {
			n = min(n, o.piece)
		}
		if _, err := o.w.Write(p[:n]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if err := http.NewResponseController(o.w).Flush(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// opaque stands for brotli, which the standard library can neither write nor
// read: the bytes with their highest bit turned. There is no event in it, nor
// any JSON.
func opaque(p []byte) []byte {
	out := make([]byte, len(p))
	for i, b := range p {
		out[i] = b ^ 0x80
	}
	return out
}

// encoded returns a whole body as the script's encoding has it.
func (c *call) encoded(body []byte) ([]byte, error) {
	switch c.encoding {
	case "gzip":
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(body); err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		if err := w.Close(); err != nil {
			return nil, fmt.Errorf("compress: %w", err)
		}
		return b.Bytes(), nil
	case "br":
		return opaque(body), nil
	}
	return body, nil
}

// prepare encodes a whole body and sets the headers that describe it.
func (c *call) prepare(contentType string, body []byte) ([]byte, error) {
	body, err := c.encoded(body)
	if err != nil {
		return nil, err
	}
	h := c.w.Header()
	h.Set("content-type", contentType)
	h.Set("content-length", strconv.Itoa(len(body)))
	c.labelEncoding()
	return body, nil
}

func (c *call) labelEncoding() {
	if c.encoding != "" {
		c.w.Header().Set("content-encoding", c.encoding)
	}
}

// json answers 200 with v.
func (c *call) json(v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	body, err = c.prepare("application/json", body)
	if err != nil {
		return err
	}
	if _, err := c.w.Write(body); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}
