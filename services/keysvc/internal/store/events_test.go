package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
)

// A reader that follows the log while many transactions commit, and some roll
// back, never sees a revision before the one below it.
func TestRevisionsBecomeVisibleInOrderWithoutGaps(t *testing.T) {
	t.Parallel()
	const writers, writes = 8, 25
	b := newBundle(t)
	done := make(chan struct{})
	seen := int64(0)
	var reading, writing errgroup.Group
	reading.Go(func() error {
		for last := false; ; {
			events, newest, err := b.store.Events(t.Context(), seen, 7)
			if err != nil {
				return err
			}
			for _, e := range events {
				if e.Revision != seen+1 {
					return fmt.Errorf("revision %d follows %d", e.Revision, seen)
				}
				seen = e.Revision
			}
			if newest < seen {
				return fmt.Errorf("newest revision %d is older than %d", newest, seen)
			}
			if last && len(events) == 0 {
				return nil
			}
			select {
			case <-done:
				last = true
			default:
			}
		}
	})
	errRollBack := errors.New("roll back")
	for w := range writers {
		writing.Go(func() error {
			for i := range writes {
				err := b.store.Change(t.Context(), func(ctx context.Context, tx key.Tx) error {
					if _, err := tx.Append(ctx, key.Event{KeyIDs: []string{fmt.Sprint(w)}}); err != nil {
						return err
					}
					if i%5 == 4 {
						return errRollBack
					}
					return nil
				})
				if err != nil && !errors.Is(err, errRollBack) {
					return err
				}
			}
			return nil
		})
	}
	if err := writing.Wait(); err != nil {
		t.Errorf("write: %v", err)
	}
	close(done)
	if err := reading.Wait(); err != nil {
		t.Errorf("read: %v", err)
	}
	if want := int64(writers * writes * 4 / 5); seen != want {
		t.Errorf("read up to revision %d, want %d", seen, want)
	}
}
