package openai

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// maxBody is the largest request that is read.
const maxBody = 32 << 20

// Options configure a Server. The zero value accepts any key and answers without
// pauses.
type Options struct {
	// APIKey is the only credential accepted. Empty: any one credential is.
	APIKey string
	// ChunkDelay is the pause before each delta of a stream.
	ChunkDelay time.Duration
	// Script applies to every request that does not say otherwise.
	Script string
	// Now tells the time that answers are dated with. Nil: time.Now.
	Now func() time.Time
}

// Server is an http.Handler that plays the API. It is safe for concurrent use.
type Server struct {
	opts  Options
	mux   *http.ServeMux
	book  book
	cache promptCache
	store store

	mu   sync.Mutex
	runs map[string]int64 // how often each counted script ran
}

// New returns a Server with an empty ledger.
func New(opts Options) *Server {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{opts: opts, mux: http.NewServeMux(), runs: map[string]int64{}}
	s.mux.Handle("POST /v1/chat/completions", s.api(s.chat))
	s.mux.Handle("POST /v1/responses", s.api(s.responses))
	s.mux.Handle("GET /v1/models", s.api(s.listModels))
	s.mux.Handle("GET /v1/models/{id}", s.api(s.getModel))
	s.mux.Handle("/", s.api(notFound))
	s.mux.HandleFunc("GET /__ledger", s.serveLedger)
	s.mux.HandleFunc("GET /__requests", s.serveRequests)
	s.mux.HandleFunc("POST /__reset", s.serveReset)
	return s
}

// ServeHTTP serves the API and the oracle.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// call is one request, received whole, and the way of its answer.
type call struct {
	outlet
	r         *http.Request
	body      []byte
	requestID string
	key       string // the credential that was accepted
}

// api receives the request, records it, checks its credential and turns the
// error of h into OpenAI's answer.
func (s *Server) api(h func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{outlet: outlet{w: w}, r: r, requestID: newID("req_", 16)}
		c.setHeaders()
		err := s.receive(c)
		if err == nil {
			err = h(c)
		}
		if apiErr, ok := errors.AsType[*apiError](err); ok {
			apiErr.write(c)
		}
		// Any other error means that the client cannot be answered.
		c.close(err)
	})
}

// setHeaders sets what the real API and its front send with every answer.
func (c *call) setHeaders() {
	h := c.w.Header()
	h.Set("x-request-id", c.requestID)
	h.Set("openai-version", "2020-10-01")
	h.Set("openai-processing-ms", "7")
	h.Set("access-control-expose-headers", "X-Request-ID")
	h.Set("strict-transport-security", "max-age=31536000; includeSubDomains; preload")
	h.Set("x-content-type-options", "nosniff")
	h.Set("server", "cloudflare")
	h.Set("cf-ray", "a168bcbccc5b9a92-SIM")
	h.Add("set-cookie", "__cf_bm=sim; HttpOnly; SameSite=None; Secure; Path=/; Domain=api.openai.com")
	h.Add("set-cookie", "_cfuvid=sim; HttpOnly; SameSite=None; Secure; Path=/; Domain=api.openai.com")
}

// setAccountHeaders sets what tells about the account of an accepted credential:
// a proxy must not pass them on.
func (c *call) setAccountHeaders() {
	for name, value := range map[string]string{
		"openai-organization":            "org-simulated",
		"openai-project":                 "proj_simulated",
		"x-ratelimit-limit-requests":     "30000",
		"x-ratelimit-limit-tokens":       "150000000",
		"x-ratelimit-remaining-requests": "29999",
		"x-ratelimit-remaining-tokens":   "149999979",
		"x-ratelimit-reset-requests":     "2ms",
		"x-ratelimit-reset-tokens":       "0s",
	} {
		c.w.Header().Set(name, value)
	}
}

// receive reads the body, records the request and checks its credential.
func (s *Server) receive(c *call) error {
	body, readErr := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	c.body = body
	sum := sha256.Sum256(body)
	s.book.addRequest(Request{
		RequestID: c.requestID, Method: c.r.Method, Path: c.r.URL.Path, Query: c.r.URL.RawQuery,
		Host: c.r.Host, Header: s.redacted(c.r.Header), KeyLast4: last4(bearer(c.r.Header)),
		BodySHA256: hex.EncodeToString(sum[:]), BodyLength: len(body),
	})
	if _, tooLarge := errors.AsType[*http.MaxBytesError](readErr); tooLarge {
		return &apiError{Status: http.StatusRequestEntityTooLarge, Message: "Request body is too large"}
	}
	if readErr != nil {
		return fmt.Errorf("read the request: %w", readErr)
	}
	if err := s.authenticate(c); err != nil {
		return err
	}
	c.setAccountHeaders()
	return nil
}

// notFound answers what no route serves.
func notFound(c *call) error {
	return &apiError{
		Status:  http.StatusNotFound,
		Message: fmt.Sprintf("Invalid URL (%s %s)", c.r.Method, c.r.URL.Path),
	}
}

// newID returns a new identifier with n random bytes, in the style of the API.
func newID(prefix string, n int) string {
	random := make([]byte, n)
	_, _ = rand.Read(random) // never fails
	return prefix + hex.EncodeToString(random)
}

// encode is json.Marshal that leaves <, > and & alone, as the real API does.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
