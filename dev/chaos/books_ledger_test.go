package chaos

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// ledger is a spend ledger in memory, of one log, by the rules of its contract: rows
// come in the order of seq without a gap.
type ledger struct {
	proxyv1.UnimplementedSpendServiceServer
	mu   sync.Mutex
	rows []*proxyv1.SpendRow
}

const ledgerLog = 1

// spend appends a row.
func (l *ledger) spend(team string, cost int64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq := int64(len(l.rows) + 1)
	l.rows = append(l.rows, &proxyv1.SpendRow{
		LogId: ledgerLog, Seq: seq, RequestId: fmt.Sprint("req_", seq), KeyId: "key_1", TeamId: team, UserId: "user_1", Model: "claude",
		Usage: &proxyv1.Usage{InputTokens: 10, OutputTokens: 5}, CostNanoUsd: cost, EndedAt: timestamppb.New(at),
	})
}

func (l *ledger) ListLogs(_ context.Context, req *proxyv1.ListLogsRequest) (*proxyv1.ListLogsResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	resp := &proxyv1.ListLogsResponse{}
	if len(l.rows) > 0 && req.GetAfterLogId() < ledgerLog {
		resp.Logs = append(resp.Logs, &proxyv1.Log{LogId: ledgerLog, LastSeq: int64(len(l.rows))})
	}
	return resp, nil
}

func (l *ledger) ReadSpend(_ context.Context, req *proxyv1.ReadSpendRequest) (*proxyv1.ReadSpendResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := int64(len(l.rows))
	from := min(req.GetAfterSeq(), last)
	to := min(last, from+int64(req.GetPageSize()))
	return &proxyv1.ReadSpendResponse{Rows: l.rows[from:to:to], LastSeq: last}, nil
}
