// Package wire makes requests to a vendor's API, one at a time as they are asked
// for: it repeats none, follows no redirect, and tells of each whether it can have
// left and what whole answer came back. What it tells is fit for a log and has no
// key in it.
package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/credential"
)

const (
	defaultTimeout = 10 * time.Second
	maxAnswer      = 1 << 20
)

// Options say which API is meant.
type Options struct {
	// Vendor begins the names of the settings: "AUTUMN" of AUTUMN_API_KEY.
	Vendor string
	// URL is the API's base, with or without /v1.
	URL string
	Key credential.Source
	// Header goes with every request.
	Header http.Header
	// Concurrency is how many connections are kept open.
	Concurrency int
	// Timeout bounds one request. Zero: 10 s, a sixth of a charge's lease.
	Timeout time.Duration
}

// Client talks to one API.
type Client struct {
	opt  Options
	http *http.Client
	fit  atomic.Pointer[secret.String] // see Once
}

// New makes a client.
func New(opt Options) *Client {
	opt.URL = strings.TrimSuffix(strings.TrimRight(opt.URL, "/"), "/v1")
	if opt.Timeout == 0 {
		opt.Timeout = defaultTimeout
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = opt.Concurrency, opt.Concurrency
	return &Client{opt: opt, http: &http.Client{
		Transport: transport,
		Timeout:   opt.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // whoever redirects is not the vendor
		},
	}}
}

// Configured says whether there is a key.
func (c *Client) Configured() bool { return !c.opt.Key.Current().Empty() }

// Once runs a check of the account, unless it passed with the key that is in use and
// no answer has refused that since.
func (c *Client) Once(check func() error) error {
	key := c.opt.Key.Current()
	if fit := c.fit.Load(); fit != nil && *fit == key {
		return nil
	}
	if err := check(); err != nil {
		return err
	}
	c.fit.Store(&key)
	return nil
}

// Request is one request. A body of nil is none.
type Request struct {
	Method, Path string
	Body         []byte
	ContentType  string
	Header       http.Header // beside that of the Options
}

// Response is one whole answer, or why there is none.
type Response struct {
	Failure    string // why no whole answer arrived; empty: one did
	NeverSent  bool   // no connection was had, so nothing left
	Status     int
	Body       []byte
	RetryAfter time.Duration
}

// Do makes one request. Errors are in the response: they are answers too.
func (c *Client) Do(ctx context.Context, r Request) Response {
	key := c.opt.Key.Current()
	if key.Empty() {
		return Response{Failure: "there is no " + c.opt.Vendor + "_API_KEY", NeverSent: true}
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	var body io.Reader
	if r.Body != nil {
		body = bytes.NewReader(r.Body)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.opt.URL+r.Path, body)
	if err != nil {
		return Response{Failure: "the request cannot be made: check " + c.opt.Vendor + "_API_URL", NeverSent: true}
	}
	req.GetBody = nil // else Go's transport repeats a request that has an Idempotency-Key
	maps.Copy(req.Header, c.opt.Header)
	maps.Copy(req.Header, r.Header)
	req.Header.Set("Authorization", "Bearer "+key.Reveal())
	if r.Body != nil {
		req.Header.Set("Content-Type", r.ContentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Response{Failure: c.explain(err), NeverSent: !connected.Load()}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		c.fit.Store(nil) // Once asks again
	}
	return c.read(resp)
}

// read reads the whole answer.
func (c *Client) read(resp *http.Response) Response {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return Response{Failure: fmt.Sprintf("%d with a truncated answer: %s", resp.StatusCode, c.explain(err))}
	case len(raw) > maxAnswer:
		return Response{Failure: fmt.Sprintf("%d with an answer of over %d bytes", resp.StatusCode, maxAnswer)}
	}
	return Response{Status: resp.StatusCode, Body: raw, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
}

// explain names an error of the transport.
func (c *Client) explain(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	}
	return c.Clean(err.Error())
}

// Clean makes foreign text fit for a log: short, one line, without the key.
func (c *Client) Clean(text string) string {
	if key := c.opt.Key.Current(); !key.Empty() {
		text = strings.ReplaceAll(text, key.Reveal(), "[secret]")
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	text = strings.ReplaceAll(text, "\x00", "") // Postgres takes none
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

// Decode reads one JSON object and nothing else. Numbers without a type stay as they
// are written.
func Decode(raw []byte, into any) bool {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '{' {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return false
	}
	_, err := d.Token()
	return err == io.EOF // Token returns it bare
}
