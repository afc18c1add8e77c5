package autumn

import (
	"bytes"
	"encoding/json"
	"net/http"
)

const maxBatch = 1000

// batchPath is the one route whose body is a list.
const batchPath = "/v1/balances.batch_track"

// parseList reads the items of a batch.
func parseList(raw []byte) ([]object, error) {
	var items []object
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		return nil, invalidInputs("body: not a list of objects")
	}
	return items, nil
}

// batchTrack serves POST /v1/balances.batch_track: all items are checked, then
// queued one by one. That some could not be queued is no error of the answer: with
// the fault partial the second half is lost.
func (s *Server) batchTrack(c *call) (reply, error) {
	if len(c.items) == 0 || len(c.items) > maxBatch {
		return reply{}, invalidInputs("body: 1 to %d items", maxBatch)
	}
	batch := make([]queued, 0, len(c.items))
	for _, item := range c.items {
		one := &call{r: c.r, body: item, version: c.version, fault: c.fault, rule: c.rule}
		req, err := s.parseTrack(one)
		if err != nil {
			return reply{}, err
		}
		key, _ := item.text("idempotency_key")
		req.key = key // the header is the batch's
		if req.lockID != "" {
			req.key = req.lockID
		}
		batch = append(batch, queued{req: req, key: key})
	}
	if c.fault == FaultPartial {
		batch = batch[:len(batch)/2]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range batch {
		s.push(m, c.rule)
	}
	return reply{http.StatusOK, success{true}}, nil
}
