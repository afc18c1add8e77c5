package billing

import (
	"fmt"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/money"
)

// markupDecimals is how many decimals a markup may have.
const markupDecimals = 6

// Markup is what a cost is multiplied by to make a price.
type Markup struct{ micros int64 }

// ParseMarkup reads a decimal such as "3" or "1.25": more than 0, at most 1000,
// at most 6 decimals.
func ParseMarkup(s string) (Markup, error) {
	micros, err := money.ParseDecimal(s, markupDecimals)
	if err != nil {
		return Markup{}, fmt.Errorf("%q is not a decimal number with at most %d decimals", s, markupDecimals)
	}
	if micros <= 0 || micros > 1000*1_000_000 {
		return Markup{}, fmt.Errorf("%q is not more than 0 and at most 1000", s)
	}
	return Markup{micros}, nil
}

// String writes the markup as a plain decimal.
func (m Markup) String() string { return money.FormatDecimal(m.micros, markupDecimals) }

// Price is cost × markup, rounded once, half away from zero.
func (m Markup) Price(cost money.NanoUSD) (money.NanoUSD, error) {
	return money.MulDiv(cost, m.micros, 1_000_000)
}

// SpendKey is the idempotency key of a request's event.
func SpendKey(requestID string) string { return EventType + ":" + requestID }

// event rates a row, or says why it cannot be billed.
func (m Markup) event(r Row, now time.Time) (e Event, reason string) {
	switch {
	case r.TeamID == "":
		return Event{}, "no team"
	case r.RequestID == "":
		return Event{}, "no request_id"
	case r.EndedAt.IsZero():
		return Event{}, "no ended_at"
	}
	price, err := m.Price(r.CostNanoUSD)
	if err != nil {
		return Event{}, fmt.Sprintf("cost × %s is out of range", m)
	}
	e = Event{
		IdempotencyKey: SpendKey(r.RequestID),
		OrganizationID: r.TeamID,
		EventType:      EventType,
		Quantity:       r.Usage.Tokens(),
		CostNanoUSD:    r.CostNanoUSD,
		PriceNanoUSD:   price,
		Markup:         m.String(),
		LogID:          r.LogID,
		Seq:            r.Seq,
		Model:          r.Model,
		OccurredAt:     r.EndedAt.UTC(),
		CreatedAt:      now,
		Row:            r,
	}
	if r.UserID != "" {
		e.SessionIDs = []string{r.UserID}
	}
	return e, ""
}
