package openai

import (
	"net/http"
	"slices"
	"sync"
)

// Entry is one answer that was begun.
type Entry struct {
	ID    string `json:"id"`  // of the completion or response
	API   string `json:"api"` // chat or responses
	Model string `json:"model"`
	// Usage as reported or, when that never came, as it stood at the end: output
	// tokens are then those of the reasoning and those sent.
	Usage  Usage `json:"usage"`
	Stream bool  `json:"stream"`
	// Reported says that the usage was sent. A chat stream reports only if it is
	// asked for.
	Reported bool `json:"reported"`
	// Finished says that the last event, or the whole body, was written.
	Finished  bool   `json:"finished"`
	RequestID string `json:"request_id"`
	// Error says why the answer ended early: client_aborted, cut, stalled,
	// stream_error or failed.
	Error string `json:"error,omitempty"`
}

// Request is one request as it arrived, whatever it was answered.
type Request struct {
	RequestID string `json:"request_id"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Query     string `json:"query"`
	Host      string `json:"host"`
	// Header has "real" or "other" in place of every credential.
	Header http.Header `json:"headers"`
	// KeyLast4 is the end of the bearer token, which tells keys apart.
	KeyLast4   string `json:"key_last4"`
	BodySHA256 string `json:"body_sha256"` // hexadecimal
	BodyLength int    `json:"body_length"`
}

// keptRequests is how many requests the oracle remembers.
const keptRequests = 1000

// book is the memory of the oracle.
type book struct {
	mu       sync.Mutex
	entries  []*Entry
	byID     map[string]*Entry
	requests []Request
}

func (b *book) addEntry(e Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byID == nil {
		b.byID = map[string]*Entry{}
	}
	b.entries = append(b.entries, &e)
	b.byID[e.ID] = &e
}

// update changes an entry; it does nothing if a reset has removed it.
func (b *book) update(id string, change func(*Entry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.byID[id]; ok {
		change(e)
	}
}

// broken books that an answer ended early.
func (b *book) broken(id string, why error) {
	b.update(id, func(e *Entry) { e.Finished, e.Error = false, why.Error() })
}

func (b *book) addRequest(r Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == keptRequests {
		b.requests = slices.Delete(b.requests, 0, 1)
	}
	b.requests = append(b.requests, r)
}

func (b *book) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries, b.byID, b.requests = nil, nil, nil
}

// Ledger returns every answer that was begun, in the order of their start.
func (s *Server) Ledger() []Entry {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	list := make([]Entry, 0, len(s.book.entries))
	for _, e := range s.book.entries {
		list = append(list, *e)
	}
	return list
}

// Requests returns the last requests, oldest first. The oracle's own routes are
// not among them.
func (s *Server) Requests() []Request {
	s.book.mu.Lock()
	defer s.book.mu.Unlock()
	return append([]Request{}, s.book.requests...)
}

// Reset forgets everything that was served.
func (s *Server) Reset() {
	s.book.reset()
	s.cache.reset()
	s.store.reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.runs)
}

func (s *Server) serveLedger(w http.ResponseWriter, _ *http.Request) { _ = writeJSON(w, s.Ledger()) }

func (s *Server) serveRequests(w http.ResponseWriter, _ *http.Request) {
	_ = writeJSON(w, s.Requests())
}

func (s *Server) serveReset(w http.ResponseWriter, _ *http.Request) {
	s.Reset()
	w.WriteHeader(http.StatusNoContent)
}

// writeJSON answers 200 with v.
func writeJSON(w http.ResponseWriter, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	return (&outlet{w: w}).json(body, false)
}
