package autumn

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

// call makes one request. Errors are in the answer.
func (c *Client) call(ctx context.Context, method, path string, body any, mark func(http.Header)) wire.Response {
	r := wire.Request{Method: method, Path: path, ContentType: "application/json", Header: http.Header{}}
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return wire.Response{Failure: "the request cannot be encoded", NeverSent: true}
		}
		r.Body = raw
	}
	if mark != nil {
		mark(r.Header)
	}
	return c.wire.Do(ctx, r)
}

// clean makes foreign text fit for a log.
func (c *Client) clean(text string) string { return c.wire.Clean(text) }
