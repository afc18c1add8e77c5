package autumn

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/wire"
)

// Track is the body of POST /v1/track.
type Track struct {
	CustomerID string `json:"customer_id"`
	FeatureID  string `json:"feature_id"`
	// Value is in credits: a plain decimal of at most 6 decimals, as Autumn
	// keeps doubles.
	Value           json.Number       `json:"value"`
	OverageBehavior string            `json:"overage_behavior"`
	Lock            *TrackLock        `json:"lock,omitempty"`
	Properties      map[string]string `json:"properties"`
}

// TrackLock is the lock of a Track.
type TrackLock struct {
	Enabled bool   `json:"enabled"`
	LockID  string `json:"lock_id"`
}

// answerBody is what we read of any answer.
type answerBody struct {
	Code       string           `json:"code"`
	Message    string           `json:"message"`
	Env        string           `json:"env"`
	Deductions *[]deduction     `json:"deductions"`
	Balance    *json.RawMessage `json:"balance"`
}

type deduction struct {
	Value json.Number `json:"value"`
}

// Names of what we tell Autumn of a charge or a top-up, for later.
const (
	propertyCharge = "charge_id"
	propertyTopUp  = "top_up_id"
)

// Post implements relay.Sink.
func (c *Client) Post(ctx context.Context, charge relay.Charge) relay.Answer {
	if charge.Via == (relay.Via{}) {
		charge.Via = c.Via(charge)
	}
	dedupe, ok := byDevice(charge.Via.Device)
	if !ok {
		return relay.Answer{NeverSent: true, Failure: "the charge has a device that is not Autumn's"}
	}
	body := &Track{
		CustomerID:      charge.TeamID,
		FeatureID:       c.opt.FeatureID,
		Value:           json.Number(charge.AmountNanoUSD.Credits()),
		OverageBehavior: "overflow",
		Properties: map[string]string{
			propertyCharge: charge.ChargeID,
			"seq":          strconv.FormatInt(charge.Seq, 10),
			"event_count":  strconv.FormatInt(charge.EventCount, 10),
		},
	}
	header := http.Header{}
	dedupe.Mark(charge.Key(), body, header)
	return c.answer(c.call(ctx, http.MethodPost, "/v1/track", body, func(h http.Header) {
		for name, values := range header {
			h[name] = values
		}
	}))
}

// answer reads what came back of a track.
func (c *Client) answer(r wire.Response) relay.Answer {
	a := relay.Answer{
		Failure: r.Failure, NeverSent: r.NeverSent, Status: r.Status, RetryAfter: r.RetryAfter, Feature: c.opt.FeatureID,
	}
	if a.Failure != "" {
		return a
	}
	var body answerBody
	if !wire.Decode(r.Body, &body) {
		a.Foreign = true
		return a
	}
	a.Code, a.Message = c.clean(body.Code), c.clean(body.Message)
	if body.Balance != nil {
		a.HasBalance, a.NullBalance, a.Balance = readBalance(*body.Balance)
	}
	if body.Deductions != nil {
		sum, err := microCredits(*body.Deductions)
		if err != nil {
			a.Foreign = true
			return a
		}
		a.Says, a.Deducted = true, sum
	}
	return a
}

// readBalance reads what a track says of the balance.
func readBalance(raw json.RawMessage) (has, null bool, remaining string) {
	if string(raw) == "null" {
		return false, true, ""
	}
	var b struct {
		Remaining json.Number `json:"remaining"`
	}
	if !wire.Decode(raw, &b) {
		return false, false, ""
	}
	return true, false, plain(b.Remaining)
}
