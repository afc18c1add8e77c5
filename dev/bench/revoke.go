package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/load"
)

// revokeKeys revokes sessions that stream, 64 at once, for as long as everything is
// measured: from the answer of RevokeKeys to the last byte of the stream.
func revokeKeys(ctx context.Context, s *stand) ([]line, error) {
	const sessions = 64
	if err := s.pace(ctx, paced); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var all load.Times
	begun, start := s.used("keysvc"), time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for n := range sessions {
		group.Go(func() error {
			for i := 0; time.Since(start) < s.set.Measure; i++ {
				took, err := s.revokeOne(ctx, fmt.Sprintf("revoked-%d-%d", n, i))
				if err != nil {
					return err
				}
				mu.Lock()
				all = append(all, took)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(all)
	l := line{
		what: "a session's key is revoked, until the last byte of its stream", times: all, most: time.Second,
		bound: "keysvc's row of revisions, and its watchers",
	}
	l, err := s.finish(l, "keysvc", begun, start, int64(len(all)))
	return []line{l}, err
}

// revokeOne revokes the key of a session whose stream has begun.
func (s *stand) revokeOne(ctx context.Context, session string) (time.Duration, error) {
	api := keysv1.NewKeyServiceClient(s.services["keysvc"].conn)
	key, err := api.IssueSessionKey(ctx, &keysv1.IssueSessionKeyRequest{UserId: session, TeamId: "team-hot", Duration: "1h"})
	if err != nil {
		return 0, err
	}
	body := `{"model":"claude-sonnet-4-5","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Hi"}]}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.services[proxysvc].http+"/v1/messages", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Api-Key", key.GetSecret())
	req.Header.Set("Anthropic-Version", "2023-06-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	stream := make([]byte, 1)
	if _, err := resp.Body.Read(stream); err != nil {
		return 0, fmt.Errorf("a stream: %s, %w", resp.Status, err)
	}
	if _, err := api.RevokeKeys(ctx, &keysv1.RevokeKeysRequest{UserId: session}); err != nil {
		return 0, err
	}
	revoked := time.Now()
	rest, err := io.ReadAll(resp.Body)
	took := time.Since(revoked)
	if stream = append(stream, rest...); err == nil && !bytes.Contains(stream, []byte("authentication_error")) {
		err = errors.New("the stream of a revoked key ended as if it were live")
	}
	return took, err
}
