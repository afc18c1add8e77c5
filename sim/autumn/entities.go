package autumn

import (
	"net/http"
	"slices"
)

// entity is a part of a customer, such as a user, with credits of its own that are
// deducted before the customer's.
type entity struct {
	id        string
	name      *string
	featureID string // that it is counted under
	balance   balance
}

type entityBody struct {
	ID         string                 `json:"id"`
	Name       *string                `json:"name"`
	CustomerID string                 `json:"customer_id"`
	FeatureID  string                 `json:"feature_id"`
	Balances   map[string]balanceBody `json:"balances"`
}

func entityNotFound(id string) error {
	return errorf(http.StatusNotFound, "entity_not_found", "Entity %s not found", id)
}

// funds are what a track of an entity is deducted from: its own rows, then the
// customer's. Without an entity they are the customer's. Nil: there are none.
func (c *customer) funds(entityID string) *balance {
	e := c.entities[entityID]
	switch {
	case e == nil || len(e.balance.rows) == 0:
		return c.balance
	case c.balance == nil:
		return &e.balance
	}
	return &balance{rows: append(slices.Clone(e.balance.rows), c.balance.rows...), unlimited: c.balance.unlimited}
}

func (s *Server) entityReply(c *customer, e *entity) reply {
	body := entityBody{e.id, e.name, c.id, e.featureID, map[string]balanceBody{}}
	if len(e.balance.rows) > 0 {
		body.Balances[s.opts.FeatureID] = *s.balanceBody(&e.balance)
	}
	return reply{http.StatusOK, body}
}

// ownerOf finds the customer of a request about entities, by path or by body.
func (s *Server) ownerOf(c *call) (*customer, error) {
	id := c.r.PathValue("id")
	if id == "" {
		f := fields{object: c.body}
		if id = f.need("customer_id"); f.err != nil {
			return nil, f.err
		}
	}
	if cust, ok := s.state.customers[id]; ok {
		return cust, nil
	}
	return nil, customerNotFound(id)
}

// createEntity serves the making of an entity; one that is there is returned.
func (s *Server) createEntity(c *call) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cust, err := s.ownerOf(c)
	if err != nil {
		return reply{}, err
	}
	f := fields{object: c.body}
	name := "entity_id"
	if c.r.PathValue("id") != "" {
		name = "id" // as the older route calls it
	}
	e := &entity{id: f.need(name), featureID: f.need("feature_id")}
	f.read("name", &e.name)
	if f.err != nil {
		return reply{}, f.err
	}
	if old := cust.entities[e.id]; old != nil {
		return s.entityReply(cust, old), nil
	}
	if cust.entities == nil {
		cust.entities = map[string]*entity{}
	}
	cust.entities[e.id] = e
	return s.entityReply(cust, e), nil
}

// withEntity finds the entity that a request is about and does something with it.
func (s *Server) withEntity(do func(*customer, *entity) reply) handler {
	return func(c *call) (reply, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		cust, err := s.ownerOf(c)
		if err != nil {
			return reply{}, err
		}
		id := c.r.PathValue("entity")
		if id == "" {
			id, _ = c.body.text("entity_id")
		}
		e := cust.entities[id]
		if e == nil {
			return reply{}, entityNotFound(id)
		}
		e.balance.refresh(s.now())
		return do(cust, e), nil
	}
}

func (s *Server) deleteEntity(c *customer, e *entity) reply {
	delete(c.entities, e.id)
	return reply{http.StatusOK, success{true}}
}
