package openai

import (
	"encoding/json"
	"net/http"
	"sync"
)

// conversation is what a response was made of and what it said, as the next one
// continues it.
type conversation struct {
	prompt []byte          // rendered, without tools and instructions
	calls  map[string]bool // the call ids that may be answered
}

// store keeps responses and their items for the credential that made them.
type store struct {
	mu            sync.Mutex
	conversations map[storeKey]conversation
	items         map[storeKey]json.RawMessage
}

type storeKey struct{ credential, id string }

func (s *store) keep(credential, id string, c conversation, items map[string]json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conversations == nil {
		s.conversations, s.items = map[storeKey]conversation{}, map[storeKey]json.RawMessage{}
	}
	s.conversations[storeKey{credential, id}] = c
	for itemID, raw := range items {
		s.items[storeKey{credential, itemID}] = raw
	}
}

// conversation returns the one that the response id ended.
func (s *store) conversation(credential, id string) (conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.conversations[storeKey{credential, id}]
	if !ok {
		return conversation{}, invalid("previous_response_id", "previous_response_not_found",
			"Previous response with id '%s' not found.", id)
	}
	return c, nil
}

// item returns what an item_reference names.
func (s *store) item(credential, id string) (json.RawMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, ok := s.items[storeKey{credential, id}]
	if !ok {
		return nil, &apiError{
			Status: http.StatusNotFound, Param: "input",
			Message: "Item with id '" + id + "' not found.",
		}
	}
	return raw, nil
}

func (s *store) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.conversations)
	clear(s.items)
}
