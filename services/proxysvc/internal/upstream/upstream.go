// Package upstream calls the APIs of model providers, or what stands in for
// them, with the real key. It retries nothing and follows no redirect.
package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/head"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Client calls deployments: those in the clear over connections of its own, the
// others, and those behind a proxy of the environment, by net/http's transport, which
// speaks HTTP/2 where the other side does.
type Client struct {
	http *http.Client

	mu    sync.RWMutex
	clear map[string]*http1 // by API base; nil: by net/http
}

// New makes a client.
func New() *Client {
	return &Client{clear: map[string]*http1{}, http: &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConns:          1024,
			MaxIdleConnsPerHost:   1024,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: 0,
			DisableCompression:    true, // bytes pass as they are
			// A connection that died without a word is noticed long before the
			// silence of the upstream counts as its own.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

var _ proxy.Upstream = (*Client)(nil)

// Send sends one request with exactly one credential. The body is whole, so
// nothing of the inbound connection is touched while the answer runs.
func (c *Client) Send(ctx context.Context, r proxy.UpstreamRequest) (*proxy.UpstreamResponse, error) {
	credential := [2]string{"X-Api-Key", r.Deployment.APIKey.Reveal()}
	if r.Deployment.Provider == proxy.OpenAI {
		credential = [2]string{"Authorization", "Bearer " + r.Deployment.APIKey.Reveal()}
	}
	h, err := c.host(r.Deployment.APIBase)
	if err != nil {
		return nil, err
	}
	var resp *proxy.UpstreamResponse
	if h != nil {
		resp, err = h.send(ctx, r, credential)
	} else {
		resp, err = c.transport(ctx, r, credential)
	}
	if err != nil {
		return nil, fmt.Errorf("call the upstream: %w", err)
	}
	return resp, nil
}

// beginning is what comes before an answer's body, and the body.
type beginning struct {
	status int
	header head.Lines
	length int64 // of the body; -1: not known
	body   io.ReadCloser
	last   bool // the connection carries no other request
}

// beginningOf is net/http's.
func beginningOf(resp *http.Response) beginning {
	return beginning{resp.StatusCode, linesOf(resp.Header), resp.ContentLength, resp.Body, resp.Close}
}

func linesOf(h http.Header) head.Lines {
	lines := make(head.Lines, 0, len(h)+proxy.OurHeaders)
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, head.Line{Name: name, Value: v})
		}
	}
	return lines
}

func (b *beginning) response() proxy.UpstreamResponse {
	return proxy.UpstreamResponse{Status: b.status, Header: b.header, Body: b.body, Length: b.length, RetryAfter: retryAfter(b.header)}
}

// host is how an API base is called without net/http; nil: it is not.
func (c *Client) host(base string) (*http1, error) {
	c.mu.RLock()
	h, known := c.clear[base]
	c.mu.RUnlock()
	if known {
		return h, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("the API base is no URL: %w", err)
	}
	by, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if err != nil {
		return nil, fmt.Errorf("the environment's proxy: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, known = c.clear[base]; !known {
		if u.Scheme == "http" && u.User == nil && by == nil {
			h = newHTTP1(u)
		}
		c.clear[base] = h
	}
	return h, nil
}

// transport sends a request by net/http.
func (c *Client) transport(ctx context.Context, r proxy.UpstreamRequest, credential [2]string) (*proxy.UpstreamResponse, error) {
	to := r.Deployment.APIBase + r.Path
	if r.Query != "" {
		to += "?" + r.Query
	}
	// Without a GetBody: a request that may have been billed is never sent twice.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, http.NoBody)
	if err != nil {
		return nil, err
	}
	if req.GetBody = nil; r.Body.Len() > 0 {
		req.Body, req.ContentLength = lend(r), int64(r.Body.Len())
	}
	for _, l := range r.Header {
		req.Header[l.Name] = append(req.Header[l.Name], l.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil // the client sent none: neither do we
	}
	req.Header.Set(credential[0], credential[1])
	resp, err := c.http.Do(req) //nolint:bodyclose // the caller closes the body, as Upstream says
	if err != nil {
		req.Body.Close() // it should be already
		return nil, err
	}
	b := beginningOf(resp)
	out := b.response()
	return &out, nil
}

// lent is a body that net/http reads, for as long as it likes: also after the call, until
// it closes it.
type lent struct {
	mu   sync.Mutex
	rest net.Buffers
	loan *proxy.Loan
	over bool
}

func lend(r proxy.UpstreamRequest) *lent {
	r.Loan.Hold()
	return &lent{rest: r.Body.Pieces(), loan: r.Loan}
}

// Read implements io.Reader.
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return 0, http.ErrBodyReadAfterClose
	}
	return l.rest.Read(p)
}

// Close implements io.Closer: nothing is read after it.
func (l *lent) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.over, l.rest = true, nil
		l.loan.Release()
	}
	return nil
}

// retryAfter reads retry-after-ms or retry-after, in seconds or as a date; 0:
// there is none.
func retryAfter(h head.Lines) time.Duration {
	if text, found := h.Find("Retry-After-Ms"); found {
		if ms, err := strconv.ParseFloat(text, 64); err == nil && ms > 0 {
			return time.Duration(ms * float64(time.Millisecond))
		}
	}
	text, found := h.Find("Retry-After")
	if !found {
		return 0
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(max(0, s) * float64(time.Second))
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
