package ledger

import "testing"

// TestWhatIsQueuedGoesBesideWhatWaitedForPostgres has settlements of an outage to write: the
// batch with the next of them takes along what is queued, as long as it is left in the queue.
func TestWhatIsQueuedGoesBesideWhatWaitedForPostgres(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pending, strays []item
		queued          int
	}{
		"nothing waits":              {queued: 0},
		"settlements of an outage":   {pending: make([]item, 1), queued: 1},
		"what an earlier one left":   {strays: make([]item, 1), queued: 1},
		"both, of the same and more": {pending: make([]item, 1), strays: make([]item, 1), queued: 1},
	} {
		w := NewWriter(nil, nil, nil, Settings{}, nil)
		w.pending, w.strays = tt.pending, tt.strays
		w.queue <- item{settlement: &Settlement{}}
		w.expect(make([]item, fewAtOnce))
		if got := len(w.queue); got != tt.queued {
			t.Errorf("%s: %d are left in the queue, want %d", name, got, tt.queued)
		}
	}
}
