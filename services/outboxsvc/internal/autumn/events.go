package autumn

import (
	"context"
	"net/http"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// Held implements relay.Sink. An event proves only what it deducted: one is
// written too when a customer had no balance at all.
func (c *Client) Held(ctx context.Context, charge relay.Charge) (applied money.NanoUSD, found bool, err error) {
	body := map[string]any{
		"customer_id": charge.TeamID, "feature_id": c.opt.FeatureID, "limit": 10,
		"filter_by": map[string]string{propertyCharge: charge.ChargeID},
	}
	if !charge.FirstSentAt.IsZero() {
		const slack = 3_600_000 // an hour, in ms: the clocks may differ
		body["custom_range"] = map[string]int64{"start": charge.FirstSentAt.UnixMilli() - slack}
	}
	var page struct {
		List []struct {
			Properties map[string]any `json:"properties"`
			Deductions *[]deduction   `json:"deductions"`
		} `json:"list"`
	}
	if _, err := c.read(c.call(ctx, http.MethodPost, "/v1/events/list", body, nil), &page); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			return 0, false, nil
		}
		return 0, false, err
	}
	for _, e := range page.List {
		if e.Properties[propertyCharge] != charge.ChargeID || e.Deductions == nil {
			continue // the filter may be closed to keys, and is then ignored
		}
		sum, err := microCredits(*e.Deductions)
		if err == nil && sum > 0 && money.NanoUSD(sum)*money.MicroCredit <= charge.AmountNanoUSD {
			return money.NanoUSD(sum) * money.MicroCredit, true, nil
		}
	}
	return 0, false, nil
}
