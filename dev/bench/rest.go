package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	billingv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/load"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/proc"
	"github.com/proliferate-ai/llm-proxy/kit/virtualkey"
)

// line is a figure of something that is no request for an answer.
type line struct {
	what        string
	scenario    string
	rate        float64 // a second
	times       load.Times
	service, db time.Duration // CPU each
	bound       string        // what bounds it
	most        time.Duration // what its p99 must be at most; 0: anything
}

// used reads what a service and its database have used.
func (s *stand) used(service string) (r reading) {
	if r.proxy, r.err = proc.Tree(s.services[service].PID()); r.err == nil {
		r.db, r.err = proc.Tree(s.postmaster)
	}
	return r
}

// calls repeats a call on some workers for as long as everything is measured. What
// one call does counts as n.
func (s *stand) calls(ctx context.Context, service string, workers int, l line, call func(ctx context.Context, n int64) (done int64, err error)) (line, error) {
	var next, done atomic.Int64
	var mu sync.Mutex
	begun, start := s.used(service), time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			for time.Since(start) < s.set.Measure {
				at := time.Now()
				n, err := call(ctx, next.Add(1))
				if err != nil {
					return err
				}
				if n == 0 {
					return nil // there is nothing more to do
				}
				done.Add(n)
				mu.Lock()
				l.times = append(l.times, time.Since(at))
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return l, err
	}
	return s.finish(l, service, begun, start, done.Load())
}

// finish fills in what was done since begun.
func (s *stand) finish(l line, service string, begun reading, start time.Time, done int64) (line, error) {
	ended := s.used(service)
	if err := errors.Join(begun.err, ended.err); err != nil {
		return l, err
	}
	slices.Sort(l.times)
	l.rate = float64(done) / time.Since(start).Seconds()
	l.service, l.db = each(ended.proxy.Sub(begun.proxy).CPU, float64(done)), each(ended.db.Sub(begun.db).CPU, float64(done))
	say("  %s: %s a second, p50 %s, p99 %s", l.what, digits(l.rate), short(l.times.At(0.5)), short(l.times.At(0.99)))
	return l, nil
}

func issueKeys(ctx context.Context, s *stand) ([]line, error) {
	api := keysv1.NewKeyServiceClient(s.services["keysvc"].conn)
	l, err := s.calls(ctx, "keysvc", 8, line{what: "IssueSessionKey, c=8", bound: "the row of revisions, which is held until each commit"},
		func(ctx context.Context, n int64) (int64, error) {
			_, err := api.IssueSessionKey(ctx, &keysv1.IssueSessionKeyRequest{UserId: fmt.Sprintf("issued-%d", n), TeamId: "team-hot", Duration: "1h"})
			return 1, err
		})
	return []line{l}, err
}

func verifyKeys(ctx context.Context, s *stand) ([]line, error) {
	api := keysv1.NewKeyServiceClient(s.services["keysvc"].conn)
	l, err := s.calls(ctx, "keysvc", 16, line{what: "VerifyKey, c=16, any of all keys", bound: "keysvc's core; a proxy asks once a key and change"},
		func(ctx context.Context, _ int64) (int64, error) {
			key := s.keys.many[rand.IntN(len(s.keys.many))]
			_, err := api.VerifyKey(ctx, &keysv1.VerifyKeyRequest{Token: virtualkey.Token(key)})
			return 1, err
		})
	return []line{l}, err
}

// watchKeys changes a key, one change after the other, until all of 200 watchers
// have heard of each.
func watchKeys(ctx context.Context, s *stand) ([]line, error) {
	const watchers = 200
	ctx, cancel := context.WithCancel(ctx)
	api := keysv1.NewKeyServiceClient(s.services["keysvc"].conn)
	heard := make(chan int64, 100*watchers)
	group, watching := errgroup.WithContext(ctx)
	defer func() { cancel(); _ = group.Wait() }() // they end because they are told to
	for range watchers {
		stream, err := api.WatchKeys(watching, &keysv1.WatchKeysRequest{})
		if err != nil {
			return nil, err
		}
		if _, err := stream.Recv(); err != nil { // where it starts from
			return nil, err
		}
		group.Go(func() error { return hear(watching, stream, heard) })
	}
	made, err := api.CreateKey(ctx, &keysv1.CreateKeyRequest{TeamId: "team-hot"})
	if err != nil {
		return nil, err
	}
	l := line{what: "a key's change, until 200 watchers have heard of it", bound: "one message a watcher and change; from NOTIFY to the last of them"}
	begun, start := s.used("keysvc"), time.Now()
	changes := int64(0)
	for time.Since(start) < s.set.Measure {
		at := time.Now()
		changed, err := api.UpdateKey(ctx, &keysv1.UpdateKeyRequest{
			Key: &keysv1.Key{KeyId: made.GetKey().GetKeyId(), Tags: []string{fmt.Sprint(changes)}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"tags"}},
		})
		if err != nil {
			return nil, err
		}
		for n := 0; n < watchers; {
			select {
			case revision := <-heard:
				if revision == changed.GetRevision() {
					n++
				}
			case <-time.After(10 * time.Second):
				return nil, fmt.Errorf("%d of %d watchers heard of a change", n, watchers)
			}
		}
		l.times = append(l.times, time.Since(at))
		changes++
	}
	l, err = s.finish(l, "keysvc", begun, start, changes)
	return []line{l}, err
}

// hear passes on the revisions of changes.
func hear(ctx context.Context, stream grpc.ServerStreamingClient[keysv1.WatchKeysResponse], heard chan<- int64) error {
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		if e.GetHeartbeat() {
			continue
		}
		select {
		case heard <- e.GetRevision():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bill starts billingsvc, which reads the ledger from its beginning, then leases and
// settles the charges that come of it.
func bill(ctx context.Context, s *stand) ([]line, error) {
	start := time.Now()
	database, err := proc.Tree(s.postmaster)
	if err != nil {
		return nil, err
	}
	// It reads once, at its start, and closes a charge with every event.
	if err := s.startService(ctx, "billingsvc", loadCores, []string{"BILLING_SYNC_INTERVAL=1h", "BILLING_CHARGE_EVENTS=1"}); err != nil {
		return nil, err
	}
	rows, err := s.awaitBilled(ctx)
	if err != nil {
		return nil, err
	}
	synced, err := s.finish(line{what: "billing sync, rows of the ledger, from billingsvc's start", bound: "one transaction a log and batch"},
		"billingsvc", reading{db: database}, start, rows)
	if err != nil {
		return nil, err
	}
	api := billingv1.NewBillingServiceClient(s.services["billingsvc"].conn)
	charges, err := s.calls(ctx, "billingsvc", 8, line{what: "charges, leased 16 at a time and settled, times of 16", bound: "one transaction a charge, one lease a team at a time"},
		func(ctx context.Context, n int64) (int64, error) { return settleCharges(ctx, api, n) })
	return []line{synced, charges}, err
}

// awaitBilled waits until all of the ledger was billed, and counts its rows.
func (s *stand) awaitBilled(ctx context.Context) (rows int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var billed int64
		err := s.db.QueryRow(ctx, `
			select (select coalesce(sum(last_seq), 0) from spend.logs)::bigint, (select coalesce(sum(seq), 0) from billing.cursors)::bigint`).Scan(&rows, &billed)
		if err != nil || rows == billed {
			return rows, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d rows were billed: %w", billed, rows, ctx.Err())
		}
	}
}

func settleCharges(ctx context.Context, api billingv1.BillingServiceClient, n int64) (int64, error) {
	resp, err := api.LeaseCharges(ctx, &billingv1.LeaseChargesRequest{Worker: fmt.Sprintf("bench-%d", n)})
	if err != nil {
		return 0, err
	}
	for _, lease := range resp.GetLeases() {
		_, err := api.SettleCharge(ctx, &billingv1.SettleChargeRequest{
			ChargeId: lease.GetCharge().GetChargeId(), LeaseToken: lease.GetLeaseToken(),
			Outcome: billingv1.AttemptOutcome_ATTEMPT_OUTCOME_APPLIED, Proof: "bench",
		})
		if err != nil {
			return 0, err
		}
	}
	return int64(len(resp.GetLeases())), nil
}

func reports(ctx context.Context, s *stand) ([]line, error) {
	api := proxyv1.NewSpendServiceClient(s.services[proxysvc].conn)
	today := time.Now().UTC().Format(time.DateOnly)
	var out []line
	for _, r := range []struct {
		what, bound string
		call        func(ctx context.Context) error
	}{
		{"GetSpendReport of all teams, today", "a line for each team and day", func(ctx context.Context) error {
			_, err := api.GetSpendReport(ctx, &proxyv1.GetSpendReportRequest{GroupBy: "team", StartDate: today, EndDate: today})
			return err
		}},
		{"GetSpendReport of one team, ever", "a line for each day and log", func(ctx context.Context) error {
			_, err := api.GetSpendReport(ctx, &proxyv1.GetSpendReportRequest{GroupBy: "team", Id: fmt.Sprintf("team-%d", rand.IntN(teams))})
			return err
		}},
		{"ListSpend of one team, the newest 100", "rows that are sent", func(ctx context.Context) error {
			_, err := api.ListSpend(ctx, &proxyv1.ListSpendRequest{TeamId: "team-hot"})
			return err
		}},
	} {
		l, err := s.calls(ctx, proxysvc, 4, line{what: r.what, bound: r.bound}, func(ctx context.Context, _ int64) (int64, error) { return 1, r.call(ctx) })
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// deltaAllocs asks the benchmark of the relay what a streamed delta allocates.
func deltaAllocs(ctx context.Context, s *stand) ([]line, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkProxy$/^Delta$", "-benchtime", "10000x", "-benchmem",
		"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test: %w\n%s", err, out)
	}
	m := regexp.MustCompile(`(\d+) allocs/op`).FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("go test says nothing of allocations:\n%s", out)
	}
	s.allocs = string(m[1])
	return nil, nil
}
