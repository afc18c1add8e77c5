package anthropic

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
	"strings"
	"sync"
	"time"
)

// maxBody is the largest request that the API takes.
const maxBody = 32 << 20

// Options configure a Server. The zero value accepts any key and answers without
// pauses.
type Options struct {
	// APIKey and APIKeys are the only credentials accepted; each has its own
	// prompt cache and threads. If there is none, any one credential is.
	APIKey  string
	APIKeys []string
	// Script is applied to every request, until SetScript replaces it.
	Script string
	// Models has scripts by the model that the request names, with or without the
	// date, as it is written there.
	Models map[string]string
	// ChunkDelay is the pause before each delta of a stream.
	ChunkDelay time.Duration
	// Now tells the time, for the lifetime of cached prompts. Nil: time.Now.
	Now func() time.Time
}

// Server is an http.Handler that plays the Messages API. It is safe for
// concurrent use.
type Server struct {
	opts    Options
	keys    []string
	mux     *http.ServeMux
	book    book
	cache   promptCache
	threads threadStore

	mu     sync.Mutex
	script string
	runs   map[string]int // how often each scope with times=N was asked for
}

// New returns a Server with an empty ledger.
func New(opts Options) *Server {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{opts: opts, mux: http.NewServeMux(), script: opts.Script, runs: map[string]int{}}
	for _, key := range append([]string{opts.APIKey}, opts.APIKeys...) {
		if key != "" {
			s.keys = append(s.keys, key)
		}
	}
	s.mux.Handle("POST /v1/messages", s.api(s.messages))
	s.mux.Handle("POST /v1/messages/count_tokens", s.api(s.countTokens))
	s.mux.Handle("GET /v1/models", s.api(s.scripted(s.listModels)))
	s.mux.Handle("GET /v1/models/{id}", s.api(s.scripted(s.getModel)))
	s.mux.Handle("/", s.api(s.scripted(notFound)))
	s.mux.HandleFunc("GET /__ledger", s.serveLedger)
	s.mux.HandleFunc("GET /__requests", s.serveRequests)
	s.mux.HandleFunc("POST /__reset", s.serveReset)
	return s
}

// ServeHTTP serves the API and the oracle.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// call is one request, received whole.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	body      []byte
	requestID string
	key       string // the credential that was accepted
	encoding  string // of the answer; empty: none
}

// api receives the request, records it, checks the headers that every route
// wants and turns the error of h into Anthropic's answer.
func (s *Server) api(h func(*call) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{w: w, r: r, requestID: newID("req_")}
		c.setHeaders()
		err := s.receive(c)
		if err == nil {
			err = h(c)
		}
		if apiErr, ok := errors.AsType[*apiError](err); ok {
			apiErr.write(c)
		}
		// Any other error means that the client cannot be answered.
	})
}

// setHeaders sets what the real API sends with every answer. All but request-id
// tell about the organisation: a proxy must not pass them on.
func (c *call) setHeaders() {
	h := c.w.Header()
	h.Set("request-id", c.requestID)
	h.Set("anthropic-organization-id", "5im00000-0000-4000-8000-000000000000")
	h.Set("anthropic-ratelimit-requests-limit", "4000")
	h.Set("anthropic-ratelimit-requests-remaining", "3999")
	h.Set("set-cookie", "__cf_bm=sim; path=/; domain=.anthropic.com; HttpOnly; Secure")
}

// receive reads the body, records the request and checks its headers.
func (s *Server) receive(c *call) error {
	body, readErr := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	c.body = body
	sum := sha256.Sum256(body)
	s.book.addRequest(Request{
		RequestID: c.requestID, Method: c.r.Method, Path: c.r.URL.Path, Query: c.r.URL.RawQuery,
		Host: c.r.Host, Key: keyEnd(c.r.Header), Header: s.redacted(c.r.Header),
		BodySHA256: hex.EncodeToString(sum[:]), BodyLength: len(body),
	})
	if _, tooLarge := errors.AsType[*http.MaxBytesError](readErr); tooLarge {
		return &apiError{Status: http.StatusRequestEntityTooLarge, Message: "Request exceeds the maximum size"}
	}
	if readErr != nil {
		return fmt.Errorf("read the request: %w", readErr)
	}
	if err := s.refuseLeaks(c.r.Header); err != nil {
		return err
	}
	if !strings.HasPrefix(c.r.URL.Path, "/v1/") {
		return nil // there is nothing, and anyone may know
	}
	if err := s.authenticate(c); err != nil {
		return err
	}
	if c.r.Header.Get("anthropic-version") == "" {
		return invalid("anthropic-version: header is required")
	}
	return nil
}

// notFound answers what no route serves.
func notFound(c *call) error {
	return &apiError{Status: http.StatusNotFound, Message: "Not Found"}
}

// newID returns a new identifier in the style of the API.
func newID(prefix string) string { return prefix + "01" + rand.Text()[:22] }

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
