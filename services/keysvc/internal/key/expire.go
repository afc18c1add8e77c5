package key

import (
	"context"
	"time"
)

// Expire announces the keys whose life is over, which ends their running streams,
// and those that have old secrets whose grace is over, which only has watchers ask
// for them anew: what an old secret began goes on. It takes up to limit keys and up
// to limit old secrets, each once, however many replicas call this, and returns how
// many keys it announced.
func (s *Service) Expire(ctx context.Context, limit int) (int, error) {
	var n int
	err := s.store.Change(ctx, func(ctx context.Context, tx Tx) error {
		now := s.now()
		expired, err := tx.TakeExpired(ctx, now, limit)
		if err != nil {
			return err
		}
		if _, err := announce(ctx, tx, expired, Event{Stopped: true, Reason: "revoked", At: now}); err != nil {
			return err
		}
		outlived, err := tx.TakeEndedSecrets(ctx, now, limit)
		if err != nil {
			return err
		}
		n = len(expired) + len(outlived)
		_, err = announce(ctx, tx, outlived, Event{At: now})
		return err
	})
	return n, err
}

// Retention says how long the past is kept.
type Retention struct{ Events, Audit time.Duration }

// Prune deletes up to limit events and audit rows that are older than they are
// kept, and returns how many it deleted. A watcher that stood before them has to
// start over.
func (s *Service) Prune(ctx context.Context, r Retention, limit int) (int, error) {
	now := s.now()
	events, err := s.store.PruneEvents(ctx, now.Add(-r.Events), limit)
	if err != nil {
		return 0, err
	}
	rows, err := s.store.PruneAudit(ctx, now.Add(-r.Audit), limit)
	return events + rows, err
}
