package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/load"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/upstream"
)

// books are how far the ledger and the upstream were at some instant.
type books struct {
	logID, seq int64
	upstream   upstream.Counts
}

// openBooks waits until nothing runs any more and notes where the ledger is.
func (s *stand) openBooks(ctx context.Context) (b books, err error) {
	if err := s.settled(ctx); err != nil {
		return b, err
	}
	if b.upstream, err = s.seen(ctx); err != nil {
		return b, err
	}
	err = s.db.QueryRow(ctx, `select log_id, last_seq from spend.logs where closed_at is null order by log_id desc limit 1`).Scan(&b.logID, &b.seq)
	return b, err
}

// settled waits until no request is open.
func (s *stand) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for quiet := 0; quiet < 3; { // a request may be between the proxy and the ledger
		var open int
		if err := s.db.QueryRow(ctx, `select count(*) from spend.open_requests`).Scan(&open); err != nil {
			return err
		}
		if quiet++; open > 0 {
			quiet = 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("requests stay open on the ledger")
		}
	}
	return nil
}

// costNanoUSD is what an answer of the upstream costs by the list: $3 and $15 a
// million tokens.
const costNanoUSD = upstream.InputTokens*3_000 + upstream.OutputTokens*15_000

// checkBooks compares the ledger with what the upstream and the clients saw since
// before: a row for each request that the upstream got, and none twice. A request
// whose client has left may come to the ledger a moment after all others, so what is
// missing is looked for again until it counts as lost.
func (s *stand) checkBooks(ctx context.Context, before books, res load.Result, f *figures) error {
	const looks = 10
	for n := range looks {
		if n > 0 {
			time.Sleep(time.Second)
		}
		if err := s.settled(ctx); err != nil {
			return err
		}
		if err := s.compare(ctx, before, res, f); err != nil || f.lost == 0 {
			return err
		}
	}
	return nil
}

func (s *stand) compare(ctx context.Context, before books, res load.Result, f *figures) error {
	seen, err := s.seen(ctx)
	if err != nil {
		return err
	}
	var rows, requests, named, messages, completed int64
	err = s.db.QueryRow(ctx, `
		select count(*), count(distinct request_id), count(*) filter (where message_id <> ''),
		  count(distinct message_id) filter (where message_id <> ''), count(*) filter (where status = 'completed'),
		  count(*) filter (where status = 'completed' and cost_nano_usd <> $3)
		from spend.spend_logs where log_id = $1 and seq > $2`,
		before.logID, before.seq, costNanoUSD).Scan(&rows, &requests, &named, &messages, &completed, &f.wrong)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	begun := seen.Begun - before.upstream.Begun
	f.lost = max(0, begun-rows, res.Answered-completed)
	f.doubled = (rows - requests) + (named - messages) + max(0, rows-res.Sent)
	return nil
}

// audit has proxysvc check its whole ledger against itself.
func (s *stand) audit(ctx context.Context) ([]string, error) {
	resp, err := proxyv1.NewSpendServiceClient(s.services[proxysvc].conn).AuditSpend(ctx, &proxyv1.AuditSpendRequest{})
	if err != nil {
		return nil, fmt.Errorf("audit the ledger: %w", err)
	}
	return resp.GetFaults(), nil
}
