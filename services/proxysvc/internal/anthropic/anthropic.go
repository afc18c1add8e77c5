// Package anthropic calls Anthropic's API, or what stands in for it, with the
// real key. It retries nothing and follows no redirect.
package anthropic

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

// Client calls deployments.
type Client struct{ http *http.Client }

// New makes a client.
func New() *Client {
	return &Client{http: &http.Client{
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
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

var _ proxy.Upstream = (*Client)(nil)

// Send sends one request with exactly one credential. The body is whole, so
// nothing of the inbound connection is touched while the answer runs.
func (c *Client) Send(ctx context.Context, r proxy.UpstreamRequest) (*proxy.UpstreamResponse, error) {
	url := r.Deployment.APIBase + r.Path
	if r.Query != "" {
		url += "?" + r.Query
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("make the upstream request: %w", err)
	}
	req.GetBody = nil // a request that may have been billed is never sent twice
	req.Header = http.Header(r.Header)
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil // the client sent none: neither do we
	}
	req.Header.Set("X-Api-Key", r.Deployment.APIKey.Reveal())
	resp, err := c.http.Do(req) //nolint:bodyclose // the caller closes the body, as Upstream says
	if err != nil {
		return nil, fmt.Errorf("call the upstream: %w", err)
	}
	return &proxy.UpstreamResponse{Status: resp.StatusCode, Header: proxy.Header(resp.Header), Body: resp.Body}, nil
}
