package autumn

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

// response is one whole answer, or why there is none.
type response struct {
	failure    string // why no whole answer arrived; empty: one did
	neverSent  bool   // no connection was had, so nothing left
	status     int
	body       []byte
	retryAfter time.Duration
}

// call makes one request. Errors are in the response: they are answers too.
func (c *Client) call(ctx context.Context, method, path string, body any, mark func(http.Header)) response {
	r := wire.Request{Method: method, Path: path, ContentType: "application/json", Header: http.Header{}}
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return response{failure: "the request cannot be encoded", neverSent: true}
		}
		r.Body = raw
	}
	if mark != nil {
		mark(r.Header)
	}
	a := c.wire.Do(ctx, r)
	return response{failure: a.Failure, neverSent: a.NeverSent, status: a.Status, body: a.Body, retryAfter: a.RetryAfter}
}

// clean makes foreign text fit for a log.
func (c *Client) clean(text string) string { return c.wire.Clean(text) }

// decode reads one JSON object and nothing else.
func decode(raw []byte, into any) bool { return wire.Decode(raw, into) }
