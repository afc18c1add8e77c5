package rpc_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// BenchmarkIssueSessionKey issues keys for sessions of their own, over gRPC on
// loopback, with several callers at once; "again" for one that has a key.
func BenchmarkIssueSessionKey(b *testing.B) {
	s := start(b, options{})
	for name, sessions := range map[string]int64{"new": 1 << 62, "again": 100} {
		b.Run(name, func(b *testing.B) {
			var n atomic.Int64
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					_, err := s.keys.IssueSessionKey(b.Context(), &keysv1.IssueSessionKeyRequest{
						UserId: fmt.Sprintf("%s-%d", name, n.Add(1)%sessions), TeamId: "org-1",
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkVerifyKey verifies keys of a table of ten thousand.
func BenchmarkVerifyKey(b *testing.B) {
	s := start(b, options{})
	token := s.issue(b, "sess-1").GetKey().GetToken()
	_, err := s.db.Exec(b.Context(), `
		insert into keys.keys (key_id, token, key_name, key_alias, team_id, user_id, models, budget_duration, metadata, tags,
			duration, blocked, idempotency_key, created_at, updated_at)
		select 'key_' || n, encode(sha256(n::text::bytea), 'hex'), 'n', '', 'org-1', 'u-' || n, '{}', '', '{}', '{}', '', false, '', now(), now()
		from generate_series(1, 10000) n`)
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.keys.VerifyKey(b.Context(), &keysv1.VerifyKeyRequest{Token: token}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkWatchKeysFanOut takes the time from the call that blocks or unblocks
// a key until the last of 200 watchers has heard of it.
func BenchmarkWatchKeysFanOut(b *testing.B) {
	const watchers = 200
	s := start(b, options{})
	keyID := s.issue(b, "sess-1").GetKey().GetKeyId()
	var heard sync.WaitGroup
	for range watchers {
		stream, err := s.keys.WatchKeys(b.Context(), &keysv1.WatchKeysRequest{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
		go count(stream, &heard)
	}
	for b.Loop() {
		heard.Add(2 * watchers)
		if _, err := s.keys.BlockKey(b.Context(), &keysv1.BlockKeyRequest{KeyId: keyID}); err != nil {
			b.Fatal(err)
		}
		if _, err := s.keys.UnblockKey(b.Context(), &keysv1.UnblockKeyRequest{KeyId: keyID}); err != nil {
			b.Fatal(err)
		}
		heard.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(2*b.N), "µs/change")
}

// count counts the events of a stream until it ends.
func count(stream grpc.ServerStreamingClient[keysv1.WatchKeysResponse], heard *sync.WaitGroup) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return
		}
		if !m.GetHeartbeat() {
			heard.Done()
		}
	}
}
