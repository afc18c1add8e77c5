// Package rpc translates between the wire and the domain: SpendService reads
// the ledger, ProxyService is the data path for gRPC callers.
package rpc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/ledger"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/pricing"
)

// Reader reads the ledger.
type Reader interface {
	Logs(ctx context.Context, after int64, limit int) ([]ledger.Log, error)
	ReadLogRows(ctx context.Context, logID, after int64, limit int) (ledger.Log, []ledger.Row, error)
	Rows(ctx context.Context, f ledger.Filter) ([]ledger.Row, error)
	Uses(ctx context.Context, q ledger.UseQuery) ([]ledger.Use, error)
	Summary(ctx context.Context, id ledger.AccountID) (ledger.Summary, error)
	OpenRequests(ctx context.Context, f ledger.Filter) ([]ledger.OpenRequest, error)
	Audit(ctx context.Context) (ledger.Audit, error)
}

// Spend implements SpendService.
type Spend struct {
	proxyv1.UnimplementedSpendServiceServer
	ledger    Reader
	book      *pricing.Book
	corrector *ledger.Corrector
}

// NewSpend makes the service.
func NewSpend(r Reader, book *pricing.Book, c *ledger.Corrector) *Spend {
	return &Spend{ledger: r, book: book, corrector: c}
}

// ListLogs implements SpendService.
func (s *Spend) ListLogs(ctx context.Context, r *proxyv1.ListLogsRequest) (*proxyv1.ListLogsResponse, error) {
	limit, err := pageSize(r.GetPageSize(), 100, 1000)
	if err != nil {
		return nil, err
	}
	logs, err := s.ledger.Logs(ctx, r.GetAfterLogId(), limit)
	if err != nil {
		return nil, err
	}
	resp := &proxyv1.ListLogsResponse{}
	for _, l := range logs {
		resp.Logs = append(resp.Logs, &proxyv1.Log{
			LogId: l.LogID, LastSeq: l.LastSeq, Closed: l.Closed,
			StartedAt: timestamppb.New(l.StartedAt), HeartbeatAt: timestamppb.New(l.HeartbeatAt),
		})
	}
	return resp, nil
}

// ReadSpend implements SpendService.
func (s *Spend) ReadSpend(ctx context.Context, r *proxyv1.ReadSpendRequest) (*proxyv1.ReadSpendResponse, error) {
	limit, err := pageSize(r.GetPageSize(), 1000, 5000)
	if err != nil {
		return nil, err
	}
	if r.GetAfterSeq() < 0 {
		return nil, fault.Errorf(fault.Invalid, "after_seq cannot be negative")
	}
	log, rows, err := s.ledger.ReadLogRows(ctx, r.GetLogId(), r.GetAfterSeq(), limit)
	if err != nil {
		return nil, err
	}
	return &proxyv1.ReadSpendResponse{Rows: rowsToWire(rows), LastSeq: log.LastSeq, Closed: log.Closed}, nil
}

// ListSpend implements SpendService.
func (s *Spend) ListSpend(ctx context.Context, r *proxyv1.ListSpendRequest) (*proxyv1.ListSpendResponse, error) {
	limit, err := pageSize(r.GetPageSize(), 100, 1000)
	if err != nil {
		return nil, err
	}
	f := ledger.Filter{TeamID: r.GetTeamId(), UserID: r.GetUserId(), KeyID: r.GetKeyId(), RequestID: r.GetRequestId(), Limit: limit}
	if r.GetEndedAfter() != nil {
		f.EndedAfter = r.GetEndedAfter().AsTime()
	}
	if r.GetEndedBefore() != nil {
		f.EndedBefore = r.GetEndedBefore().AsTime()
	}
	if f.After, err = decodeToken(r.GetPageToken()); err != nil {
		return nil, err
	}
	rows, err := s.ledger.Rows(ctx, f)
	if err != nil {
		return nil, err
	}
	resp := &proxyv1.ListSpendResponse{Rows: rowsToWire(rows)}
	if len(rows) == limit {
		resp.NextPageToken = encodeToken(rows[limit-1])
	}
	return resp, nil
}

// GetSpendReport implements SpendService.
func (s *Spend) GetSpendReport(ctx context.Context, r *proxyv1.GetSpendReportRequest) (*proxyv1.GetSpendReportResponse, error) {
	q := ledger.UseQuery{Kind: r.GetGroupBy()}
	if r.GetId() != "" {
		q.IDs = []string{r.GetId()}
	}
	if !isKind(q.Kind) {
		return nil, fault.Errorf(fault.Invalid, "group_by is %q; it needs team, user, key or model", q.Kind)
	}
	var err error
	if q.From, err = date("start_date", r.GetStartDate()); err != nil {
		return nil, err
	}
	if q.To, err = date("end_date", r.GetEndDate()); err != nil {
		return nil, err
	}
	totals, err := s.ledger.Uses(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &proxyv1.GetSpendReportResponse{}
	for _, t := range totals {
		resp.Totals = append(resp.Totals, &proxyv1.SpendTotal{
			Id: t.ID, Day: t.Day.Format(time.DateOnly), Requests: t.Requests, CostNanoUsd: int64(t.Cost), Usage: usageToWire(t.Usage),
		})
	}
	return resp, nil
}

// GetAccount implements SpendService.
func (s *Spend) GetAccount(ctx context.Context, r *proxyv1.GetAccountRequest) (*proxyv1.GetAccountResponse, error) {
	if !isKind(r.GetKind()) || r.GetId() == "" {
		return nil, fault.Errorf(fault.Invalid, "kind needs to be team, user, key or model, and id must be given")
	}
	sum, err := s.ledger.Summary(ctx, ledger.AccountID{Kind: r.GetKind(), ID: r.GetId()})
	if err != nil {
		return nil, err
	}
	return &proxyv1.GetAccountResponse{
		Kind: r.GetKind(), Id: r.GetId(), Requests: sum.Requests, SpentNanoUsd: int64(sum.Spent),
		HeldNanoUsd: int64(sum.Held), OpenRequests: sum.OpenRequests,
	}, nil
}

// AuditSpend implements SpendService.
func (s *Spend) AuditSpend(ctx context.Context, _ *proxyv1.AuditSpendRequest) (*proxyv1.AuditSpendResponse, error) {
	a, err := s.ledger.Audit(ctx)
	if err != nil {
		return nil, err
	}
	resp := &proxyv1.AuditSpendResponse{
		Logs: a.Logs, Rows: a.Rows, CostNanoUsd: int64(a.Cost), OpenRequests: a.OpenRequests, HeldNanoUsd: int64(a.Held), Faults: a.Faults,
	}
	for _, t := range a.Teams {
		resp.Teams = append(resp.Teams, &proxyv1.TeamSpend{TeamId: t.TeamID, Requests: t.Requests, CostNanoUsd: int64(t.Cost)})
	}
	return resp, nil
}

func isKind(kind string) bool {
	switch kind {
	case ledger.KindTeam, ledger.KindUser, ledger.KindKey, ledger.KindModel:
		return true
	}
	return false
}

func date(field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, fault.Errorf(fault.Invalid, "%s is %q; it needs the form YYYY-MM-DD", field, text)
	}
	return t, nil
}

func pageSize(asked int32, def, most int) (int, error) {
	switch {
	case asked == 0:
		return def, nil
	case asked < 0 || int(asked) > most:
		return 0, fault.Errorf(fault.Invalid, "page_size is %d; it needs to be from 1 to %d", asked, most)
	}
	return int(asked), nil
}

// token is the place of a page's last row.
type token struct {
	EndedAt time.Time `json:"e"`
	LogID   int64     `json:"l"`
	Seq     int64     `json:"s"`
}

func encodeToken(r ledger.Row) string {
	text, err := json.Marshal(token{r.EndedAt, r.LogID, r.Seq})
	if err != nil {
		return "" // cannot happen: numbers and a time always marshal
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func decodeToken(text string) (*ledger.Row, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no token: the first page
	}
	var t token
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(raw, &t) != nil {
		return nil, fault.Errorf(fault.Invalid, "page_token is not one that a page before has given")
	}
	return &ledger.Row{LogID: t.LogID, Seq: t.Seq, Settlement: ledger.Settlement{EndedAt: t.EndedAt}}, nil
}

func rowsToWire(rows []ledger.Row) []*proxyv1.SpendRow {
	out := make([]*proxyv1.SpendRow, 0, len(rows))
	for _, r := range rows {
		out = append(out, rowToWire(r))
	}
	return out
}

// statuses name the ledger's statuses on the wire.
var statuses = map[ledger.Status]proxyv1.SpendStatus{
	ledger.Completed:   proxyv1.SpendStatus_SPEND_STATUS_COMPLETED,
	ledger.Failed:      proxyv1.SpendStatus_SPEND_STATUS_FAILED,
	ledger.Interrupted: proxyv1.SpendStatus_SPEND_STATUS_INTERRUPTED,
	ledger.Aborted:     proxyv1.SpendStatus_SPEND_STATUS_ABORTED,
	ledger.Stopped:     proxyv1.SpendStatus_SPEND_STATUS_STOPPED,
	ledger.Abandoned:   proxyv1.SpendStatus_SPEND_STATUS_ABANDONED,
	ledger.Adjusted:    proxyv1.SpendStatus_SPEND_STATUS_ADJUSTED,
}

func rowToWire(r ledger.Row) *proxyv1.SpendRow {
	out := &proxyv1.SpendRow{
		LogId: r.LogID, Seq: r.Seq, RequestId: r.RequestID, MessageId: r.MessageID, UpstreamRequestId: r.UpstreamRequestID,
		KeyId: r.KeyID, Token: r.Token, TeamId: r.TeamID, UserId: r.UserID, ModelGroup: r.ModelGroup, Model: r.Model, ModelId: r.ModelID,
		Usage: usageToWire(r.Usage), CostNanoUsd: int64(r.Cost), PriceVersion: r.PriceVersion,
		Status: statuses[r.Status], Estimated: r.Estimated, Stream: r.Stream, StopReason: r.StopReason,
		HttpStatus: int32(r.HTTPStatus), ErrorType: r.ErrorType, Retries: int32(r.Retries), // few digits
		StartedAt: timestamppb.New(r.StartedAt), EndedAt: timestamppb.New(r.EndedAt),
		Tags: r.Tags, UserAgent: r.UserAgent, Adjusts: r.Adjusts, Client: r.Client, CostBreakdownNanoUsd: map[string]int64{},
	}
	for pool, cost := range r.Breakdown {
		out.CostBreakdownNanoUsd[pool] = int64(cost)
	}
	if !r.FirstByteAt.IsZero() {
		out.FirstByteAt = timestamppb.New(r.FirstByteAt)
	}
	return out
}

func usageToWire(u pricing.Usage) *proxyv1.Usage {
	return &proxyv1.Usage{
		InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, CacheReadInputTokens: u.CacheReadTokens,
		CacheWrite_5MInputTokens: u.CacheWrite5mTokens, CacheWrite_1HInputTokens: u.CacheWrite1hTokens,
		WebSearchRequests: u.WebSearchRequests, Speed: u.Speed, InferenceGeo: u.InferenceGeo, ServiceTier: u.ServiceTier,
		ReasoningTokens: u.ReasoningTokens,
	}
}
