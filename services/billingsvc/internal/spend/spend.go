// Package spend reads the ledger from proxysvc.
package spend

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	proxysvcv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/kit/money"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc/internal/billing"
)

const (
	logsPerCall = 1000
	rowsPerCall = 1000
	callTimeout = 20 * time.Second
)

// Client implements billing.SpendLog.
type Client struct{ api proxysvcv1.SpendServiceClient }

var _ billing.SpendLog = (*Client)(nil)

// New makes a client on a connection that stays the caller's.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{proxysvcv1.NewSpendServiceClient(conn)}
}

// Logs lists some logs after a log_id.
func (c *Client) Logs(ctx context.Context, afterLogID int64) ([]billing.Log, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.ListLogs(ctx, &proxysvcv1.ListLogsRequest{AfterLogId: afterLogID, PageSize: logsPerCall})
	if err != nil {
		return nil, faultOf(err)
	}
	logs := make([]billing.Log, 0, len(resp.GetLogs()))
	for _, l := range resp.GetLogs() {
		logs = append(logs, billing.Log{LogID: l.GetLogId(), LastSeq: l.GetLastSeq(), Closed: l.GetClosed()})
	}
	return logs, nil
}

// Read reads some of a log's rows after a seq.
func (c *Client) Read(ctx context.Context, logID, afterSeq int64) (billing.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.api.ReadSpend(ctx, &proxysvcv1.ReadSpendRequest{LogId: logID, AfterSeq: afterSeq, PageSize: rowsPerCall})
	if err != nil {
		return billing.Page{}, faultOf(err)
	}
	page := billing.Page{
		LogID: logID, AfterSeq: afterSeq, LastSeq: resp.GetLastSeq(), Closed: resp.GetClosed(),
		Rows: make([]billing.Row, 0, len(resp.GetRows())),
	}
	for _, r := range resp.GetRows() {
		page.Rows = append(page.Rows, rowOf(r))
	}
	return page, nil
}

func rowOf(r *proxysvcv1.SpendRow) billing.Row {
	u := r.GetUsage()
	row := billing.Row{
		LogID: r.GetLogId(), Seq: r.GetSeq(), RequestID: r.GetRequestId(), KeyID: r.GetKeyId(),
		TeamID: r.GetTeamId(), UserID: r.GetUserId(), Model: r.GetModel(),
		CostNanoUSD: money.NanoUSD(r.GetCostNanoUsd()), PriceVersion: r.GetPriceVersion(), Status: r.GetStatus().String(),
		Usage: billing.Usage{
			InputTokens: u.GetInputTokens(), OutputTokens: u.GetOutputTokens(),
			CacheReadInputTokens:    u.GetCacheReadInputTokens(),
			CacheWrite5mInputTokens: u.GetCacheWrite_5MInputTokens(),
			CacheWrite1hInputTokens: u.GetCacheWrite_1HInputTokens(),
			WebSearchRequests:       u.GetWebSearchRequests(),
			Speed:                   u.GetSpeed(), InferenceGeo: u.GetInferenceGeo(), ServiceTier: u.GetServiceTier(),
		},
	}
	if r.GetEndedAt() != nil {
		row.EndedAt = r.GetEndedAt().AsTime()
	}
	return row
}

// faultOf keeps what a caller of billing can act on. Any other status is about
// us and proxysvc, not about the caller: it must not look like his own fault.
func faultOf(err error) error {
	switch status.Code(err) {
	case codes.DataLoss:
		return fault.Wrap(fault.DataLoss, err, "the ledger has lost a row: "+status.Convert(err).Message())
	case codes.Canceled:
		return err
	default:
		return fault.Wrap(fault.Unavailable, err, "the ledger cannot be read: proxysvc answered "+status.Code(err).String())
	}
}
