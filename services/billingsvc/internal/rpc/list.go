package rpc

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

// ListBillingEvents lists events, newest first.
func (s *Server) ListBillingEvents(ctx context.Context, req *billingsvcv1.ListBillingEventsRequest) (*billingsvcv1.ListBillingEventsResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	q := billing.EventQuery{TeamID: req.GetTeamId(), IdempotencyKey: req.GetIdempotencyKey(), Limit: size + 1}
	switch {
	case req.GetRequestId() != "" && q.IdempotencyKey != "":
		return nil, fault.Errorf(fault.Invalid, "request_id and idempotency_key do not go together")
	case req.GetRequestId() != "":
		q.IdempotencyKey = billing.SpendKey(req.GetRequestId())
	}
	if req.GetPageToken() != "" {
		if q.BeforeTime, q.BeforeKey, err = eventToken(req.GetPageToken()); err != nil {
			return nil, err
		}
	}
	events, err := s.svc.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListBillingEventsResponse{}
	if len(events) > size {
		events = events[:size]
		last := events[size-1]
		resp.NextPageToken = token(strconv.FormatInt(last.OccurredAt.UnixMicro(), 10), last.IdempotencyKey)
	}
	for _, e := range events {
		resp.BillingEvents = append(resp.BillingEvents, eventOf(e))
	}
	return resp, nil
}

// ListCharges lists charges, newest first.
func (s *Server) ListCharges(ctx context.Context, req *billingsvcv1.ListChargesRequest) (*billingsvcv1.ListChargesResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	state, err := stateFrom(req.GetState())
	if err != nil {
		return nil, err
	}
	q := billing.ChargeQuery{TeamID: req.GetTeamId(), State: state, Limit: size + 1}
	if req.GetPageToken() != "" {
		parts, err := parts(req.GetPageToken(), 1)
		if err != nil {
			return nil, err
		}
		q.Before = parts[0]
	}
	charges, err := s.svc.Charges(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &billingsvcv1.ListChargesResponse{}
	if len(charges) > size {
		charges = charges[:size]
		resp.NextPageToken = token(charges[size-1].ChargeID)
	}
	resp.Charges = chargesOf(charges)
	return resp, nil
}

func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return 100, nil
	case n < 0 || n > 1000:
		return 0, fault.Errorf(fault.Invalid, "page_size is not from 1 to 1000")
	}
	return int(n), nil
}

// token packs the place of a page's last item; clients must not look inside.
func token(parts ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, " ")))
}

func parts(token string, n int) ([]string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	list := strings.SplitN(string(raw), " ", n)
	if err != nil || len(list) != n || strings.ContainsRune(string(raw), 0) {
		return nil, fault.Errorf(fault.Invalid, "page_token is not one of ours")
	}
	return list, nil
}

func eventToken(token string) (time.Time, string, error) {
	list, err := parts(token, 2)
	if err != nil {
		return time.Time{}, "", err
	}
	micros, err := strconv.ParseInt(list[0], 10, 64)
	if err != nil {
		return time.Time{}, "", fault.Errorf(fault.Invalid, "page_token is not one of ours")
	}
	return time.UnixMicro(micros).UTC(), list[1], nil
}
