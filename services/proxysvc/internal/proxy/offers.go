package proxy

import "github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"

// Offer is a deployment as administrators see it.
type Offer struct {
	Deployment Deployment
	Condition  Condition
	// Price is nil for one whose requests are refused for want of a price, and
	// for a wildcard.
	Price *pricing.Model
}

// Offers lists the deployments of the routing in force, in its order.
func (s *Service) Offers() []Offer {
	t := s.router.table.Load()
	offers := make([]Offer, 0, len(t.Deployments))
	for _, d := range t.Deployments {
		o := Offer{Deployment: d}
		o.Condition, _ = t.health[identity(d)].condition(&d, s.now())
		if price, listed := s.priceOf(&target{Deployment: &d}); listed {
			o.Price = price
		}
		offers = append(offers, o)
	}
	return offers
}

// Price finds the price of a model by the name that clients send, or by one of
// the price list's. It fails when there is none.
func (s *Service) Price(name string) (*pricing.Model, error) {
	t := s.router.table.Load()
	for _, provider := range []Provider{Anthropic, OpenAI} {
		if ts := t.targets(name, provider); len(ts) > 0 {
			if price, _ := s.priceOf(&ts[0]); price != nil {
				return price, nil
			}
			return s.book.Model(ts[0].Model) // why there is none
		}
	}
	return s.book.Model(name)
}
