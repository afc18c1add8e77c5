package anthropic

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// threadsBeta is the value of anthropic-beta without which the API does not know
// the field thread.
const threadsBeta = "message-threads-2026-08-12"

// threadLife is how long a conversation is kept after its last answer.
const threadLife = 5 * time.Minute

// thread asks for a conversation that the server holds.
type thread struct {
	Type              string `json:"type"` // create or continue
	PreviousMessageID string `json:"previous_message_id"`
}

// conversation is what the server holds under the id of its last answer.
type conversation struct {
	key      string // the credential that made it
	model    string
	system   content
	tools    []tool
	messages []message // the last one is the answer
	expires  time.Time
}

// threadStore holds conversations. The zero value holds none.
type threadStore struct {
	mu   sync.Mutex
	byID map[string]conversation
}

func (t *threadStore) put(id string, c conversation, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID == nil {
		t.byID = map[string]conversation{}
	}
	maps.DeleteFunc(t.byID, func(_ string, c conversation) bool { return !now.Before(c.expires) })
	t.byID[id] = c
}

func (t *threadStore) get(id, key string, now time.Time) (conversation, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.byID[id]
	return c, ok && c.key == key && now.Before(c.expires)
}

func (t *threadStore) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID = nil
}

// check applies the rules for the field thread of a request.
func (t *thread) check(p *prompt, h http.Header) error {
	if !slices.Contains(words(h.Values("anthropic-beta")), threadsBeta) {
		return invalid("thread: Extra inputs are not permitted")
	}
	switch t.Type {
	case "create":
		return nil
	case "continue":
		if len(p.System) > 0 || len(p.Tools) > 0 {
			return invalid("thread: system and tools are those of the thread and must be left out")
		}
		return nil
	}
	return invalid("thread.type: Input should be 'create' or 'continue'")
}

func words(values []string) []string {
	return strings.FieldsFunc(strings.Join(values, ","), isSeparator)
}

// resume puts the conversation that a request continues before its messages.
func (s *Server) resume(c *call, p *prompt) error {
	if p.Thread == nil || p.Thread.Type != "continue" {
		return nil
	}
	id := p.Thread.PreviousMessageID
	held, ok := s.threads.get(id, c.key, s.opts.Now())
	if !ok {
		return &apiError{Status: http.StatusNotFound, Message: "thread: message " + id + " not found", Code: "thread_not_found"}
	}
	if held.model != p.model.id {
		return &apiError{Status: http.StatusBadRequest, Message: "thread: a thread keeps its model", Code: "thread_fingerprint_mismatch"}
	}
	p.System, p.Tools = held.system, held.tools
	p.Messages = slices.Concat(held.messages, p.Messages)
	return nil
}

// keep holds the conversation of p under the id of the answer, if the request
// asked for that. An answer that ends early is not held.
func (s *Server) keep(c *call, p *prompt, a *answer) error {
	if p.Thread == nil {
		return nil
	}
	said := message{Role: "assistant"}
	for i := range a.blocks {
		block, err := encode(a.blocks[i].full())
		if err != nil {
			return err
		}
		said.Content = append(said.Content, json.RawMessage(block))
	}
	now := s.opts.Now()
	s.threads.put(a.id, conversation{
		key: c.key, model: p.model.id, system: p.System, tools: p.Tools,
		messages: slices.Concat(p.Messages, []message{said}), expires: now.Add(threadLife),
	}, now)
	return nil
}
