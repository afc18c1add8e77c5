package autumn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
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
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return response{failure: "the request cannot be encoded", neverSent: true}
		}
		payload = bytes.NewReader(raw)
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, c.opt.URL+path, payload)
	if err != nil {
		return response{failure: "the request cannot be made: check AUTUMN_API_URL", neverSent: true}
	}
	key := c.key.Current()
	if key.Empty() {
		return response{failure: "there is no AUTUMN_API_KEY", neverSent: true}
	}
	// Else Go's transport repeats a request that has an Idempotency-Key.
	req.GetBody = nil
	req.Header.Set("Authorization", "Bearer "+key.Reveal())
	req.Header.Set("x-api-version", apiVersion)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
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
	return response{status: resp.StatusCode, body: raw, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
}

// explain names an error of the transport.
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
	text = strings.ReplaceAll(text, "\x00", "")
	const most = 300
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// retryAfter reads seconds or a date; zero for anything else.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 && seconds <= 1_000_000 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
