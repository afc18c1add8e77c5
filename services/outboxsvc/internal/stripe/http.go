package stripe

import (
	"context"
	"net/http"
	"net/url"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

// errorBody is how Stripe says no.
type errorBody struct {
	Error stripeError `json:"error"`
}

type stripeError struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e stripeError) name() string {
	if e.Code != "" {
		return e.Code
	}
	return e.Type
}

// call makes one request.
func (c *Client) call(ctx context.Context, method, path string, form url.Values, header http.Header) wire.Response {
	r := wire.Request{Method: method, Path: path, ContentType: "application/x-www-form-urlencoded", Header: header}
	if form != nil {
		r.Body = []byte(form.Encode())
	}
	return c.wire.Do(ctx, r)
}
