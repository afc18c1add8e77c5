package stripe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// response is one whole answer, or why there is none.
type response struct {
	failure    string // empty: there is an answer
	neverSent  bool
	status     int
	body       []byte
	retryAfter time.Duration
}

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

// call makes one request and never repeats it. Errors are in the response.
func (c *Client) call(ctx context.Context, method, path string, form url.Values, mark func(http.Header)) response {
	key := c.key.Current()
	if key.Empty() {
		return response{failure: "there is no STRIPE_API_KEY", neverSent: true}
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, c.opt.URL+path, body)
	if err != nil {
		return response{failure: "the request cannot be made: check STRIPE_API_URL", neverSent: true}
	}
	req.GetBody = nil // else Go's transport may send it twice
	req.Header.Set("Authorization", "Bearer "+key.Reveal())
	req.Header.Set("Stripe-Version", apiVersion)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if mark != nil {
		mark(req.Header)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return response{failure: c.explain(err), neverSent: !connected.Load()}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		c.fit.Store(nil) // Ready asks again
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return response{failure: fmt.Sprintf("%d with a truncated answer: %s", resp.StatusCode, c.explain(err))}
	case len(raw) > maxAnswer:
		return response{failure: fmt.Sprintf("%d with an answer of over %d bytes", resp.StatusCode, maxAnswer)}
	}
	r := response{status: resp.StatusCode, body: raw}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds <= 1_000_000 {
		r.retryAfter = time.Duration(seconds) * time.Second
	}
	return r
}

func (c *Client) explain(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	}
	return c.clean(err.Error())
}

// clean makes foreign text fit for a log: short, one line, without the key.
func (c *Client) clean(text string) string {
	if key := c.key.Current(); !key.Empty() {
		text = strings.ReplaceAll(text, key.Reveal(), "[secret]")
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	const most = 300
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// decode reads one JSON object and nothing else.
func decode(raw []byte, into any) bool {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '{' {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if d.Decode(into) != nil {
		return false
	}
	_, err := d.Token()
	return errors.Is(err, io.EOF)
}
