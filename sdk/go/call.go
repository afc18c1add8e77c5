package llmproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	mostBytes    = 32 << 20 // of an answer
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

// notOurs is said of an answer that LLM Proxy does not give.
const notOurs = "the answer is not LLM Proxy's; is its URL right?"

// request is one call of the REST API.
type request struct {
	op, method, path string
	query            url.Values
	body             any // nil: none
	// once: a repeat could do more than the first attempt did, so it is only sent
	// again when the proxy turned it away unread (429).
	once bool
}

// call sends a request, again if that is safe and may help, and decodes its
// answer. The caller's context ends it at any time.
func (c *Client) call(ctx context.Context, r request, answer any) error {
	switch {
	case !c.Enabled():
		return fmt.Errorf("%s: %w", r.op, ErrDisabled)
	case c.cfg.MasterKey == "":
		return fmt.Errorf("%s: LLM_PROXY_MASTER_KEY is not set", r.op)
	}
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return fmt.Errorf("%s: write the request: %w", r.op, err)
		}
	}
	for attempt := 0; ; attempt++ {
		pause, err := c.attempt(ctx, r, body, answer)
		failed, ok := errors.AsType[*Error](err)
		switch {
		case err == nil:
			return nil
		case !ok || !failed.Retryable || attempt >= c.retries || ctx.Err() != nil:
			return err
		case r.once && failed.Status != http.StatusTooManyRequests:
			return err
		}
		if pause < 0 {
			pause = backoff(attempt)
		}
		select {
		case <-time.After(min(pause, longestPause)):
		case <-ctx.Done():
			return err
		}
	}
}

// backoff is the pause after an attempt, the first of which is 0: it doubles, and up to
// half of it is left to chance.
func backoff(attempt int) time.Duration {
	d := min(firstPause<<min(attempt, 10), longestPause)
	return d/2 + rand.N(d/2) //nolint:gosec // it spreads retries, it protects nothing
}

// attempt sends a request once. The duration is the pause that the proxy asks
// for before the next attempt; negative: it names none.
func (c *Client) attempt(ctx context.Context, r request, body []byte, answer any) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	target := c.admin + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return -1, fmt.Errorf("%s: %w", r.op, err)
	}
	req.Header.Set("Authorization", "Bearer "+string(c.cfg.MasterKey))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return -1, c.lost(r.op, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostBytes))
	if err != nil {
		return -1, c.lost(r.op, err)
	}
	if resp.StatusCode/100 != 2 {
		return retryAfter(resp.Header), refusal(r.op, resp, text, c.cfg.MasterKey)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return -1, &Error{Op: r.op, Status: resp.StatusCode, Message: notOurs}
	}
	return 0, nil
}

// lost makes an Error of a call that got no answer.
func (c *Client) lost(op string, err error) *Error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the method and the address say nothing new
	}
	return &Error{Op: op, Message: redact(err.Error(), c.cfg.MasterKey), Retryable: !errors.Is(err, context.Canceled), cause: err}
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("retry-after"))
	if err != nil || seconds < 0 {
		return -1
	}
	return time.Duration(min(seconds, int(longestPause/time.Second))) * time.Second
}
