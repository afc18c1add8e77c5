package watch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/proliferate-ai/llm-proxy/kit/fault"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/key"
	"github.com/proliferate-ai/llm-proxy/services/keysvc/internal/watch"
)

const (
	poll      = 250 * time.Millisecond
	heartbeat = 500 * time.Millisecond
)

var errDown = errors.New("database is down")

// memory is a log in memory. While deaf, nothing wakes its listeners.
type memory struct {
	mu     sync.Mutex
	newest int64
	pruned int64 // events up to here are gone
	down   bool
	deaf   bool
	woken  func()
}

func (m *memory) Events(_ context.Context, after int64, limit int) ([]key.Event, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, 0, errDown
	}
	var events []key.Event
	for r := after; r < m.newest && len(events) < limit; r++ {
		if r >= m.pruned {
			events = append(events, key.Event{Revision: r + 1})
		}
	}
	return events, m.newest, nil
}

func (m *memory) Listen(ctx context.Context, woken func()) error {
	m.mu.Lock()
	m.woken = woken
	m.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (m *memory) append(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newest += n; !m.deaf && m.woken != nil {
		m.woken()
	}
}

func (m *memory) set(f func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// start runs a hub until the test ends. It must be called in a bubble.
func start(t *testing.T, log *memory) *watch.Hub {
	t.Helper()
	hub, err := watch.New(t.Context(), log, watch.Options{
		Poll: poll, Heartbeat: heartbeat, Log: zap.NewNop(), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- hub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	synctest.Wait()
	return hub
}

// watching is a watch whose messages are kept as text with the time since the
// watch began: "+250ms event 7".
type watching struct {
	mu   sync.Mutex
	got  []string
	err  error
	stop chan struct{}
}

func (w *watching) take() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	return got
}

// begin watches in the background. gate, if there is one, holds up every
// message.
func begin(t *testing.T, hub *watch.Hub, after int64, gate <-chan struct{}) *watching {
	t.Helper()
	w := &watching{stop: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(ended)
		err := hub.Watch(ctx, watch.Request{After: after, Stop: w.stop}, func(m watch.Message) error {
			if gate != nil {
				<-gate
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			kind := "event"
			if m.Heartbeat {
				kind = "heartbeat"
			}
			w.got = append(w.got, fmt.Sprintf("+%s %s %d", time.Since(began), kind, m.Revision))
			return nil
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = err
	}()
	t.Cleanup(func() { cancel(); <-ended })
	synctest.Wait()
	return w
}

func (w *watching) want(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.take()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func (w *watching) wantEnd(t *testing.T, kind fault.Kind) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if fault.KindOf(w.err) != kind {
		t.Errorf("the watch ended with %v, want a fault of kind %d", w.err, kind)
	}
}

func TestAWatchStartsNowAndGetsEventsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{newest: 7}
		w := begin(t, start(t, log), 0, nil)
		w.want(t, "+0s heartbeat 7")
		<-time.After(10 * time.Millisecond)
		log.append(2)
		w.want(t, "+10ms event 8", "+10ms event 9")
	})
}

func TestAWatchResumesAfterItsRevision(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{newest: 1203} // more than two pages ago
		w := begin(t, start(t, log), 1, nil)
		log.append(1)
		got := w.take()
		if len(got) != 1204 {
			t.Fatalf("got %d messages, want a heartbeat and 1203 events", len(got))
		}
		for i, m := range got {
			want := fmt.Sprintf("+0s event %d", i+1)
			if i == 0 {
				want = "+0s heartbeat 1"
			}
			if m != want {
				t.Fatalf("message %d = %q, want %q", i, m, want)
			}
		}
	})
}

func TestWhatAWatchFoundInTheLogIsNotSentTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{newest: 1, deaf: true}
		hub := start(t, log)
		log.append(2) // the hub reads them at its next poll
		w := begin(t, hub, 1, nil)
		w.want(t, "+0s heartbeat 1", "+0s event 2", "+0s event 3")
		<-time.After(poll)
		w.want(t, "+250ms heartbeat 3")
	})
}

func TestALostNotificationCostsNoMoreThanThePollInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{deaf: true}
		w := begin(t, start(t, log), 0, nil)
		w.take()
		<-time.After(10 * time.Millisecond)
		log.append(1)
		<-time.After(poll - 10*time.Millisecond)
		w.want(t, "+250ms event 1", "+250ms heartbeat 1")
	})
}

func TestHeartbeatsComeInTimeAndStopWhileTheLogCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{newest: 3}
		w := begin(t, start(t, log), 0, nil)
		<-time.After(time.Second)
		w.want(t, "+0s heartbeat 3", "+250ms heartbeat 3", "+500ms heartbeat 3", "+750ms heartbeat 3", "+1s heartbeat 3")
		log.set(func(m *memory) { m.down = true })
		<-time.After(10 * time.Second)
		w.want(t)
		log.set(func(m *memory) { m.down = false; m.newest++ })
		<-time.After(poll)
		w.want(t, "+11.25s event 4", "+11.25s heartbeat 4")
	})
}

func TestAWatchDoesNotStartWhileTheLogCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{}
		hub := start(t, log)
		log.set(func(m *memory) { m.down = true })
		err := hub.Watch(t.Context(), watch.Request{}, func(m watch.Message) error {
			t.Errorf("got %+v, want nothing", m)
			return nil
		})
		if !errors.Is(err, errDown) {
			t.Errorf("Watch = %v, want %v", err, errDown)
		}
	})
}

func TestASlowWatcherIsDroppedAndOthersAreNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, gate := &memory{}, make(chan struct{})
		hub := start(t, log)
		slow, quick := begin(t, hub, 0, gate), begin(t, hub, 0, nil)
		for range 200 { // in parts that the quick one keeps up with
			log.append(10)
			synctest.Wait()
		}
		if got := len(quick.take()); got != 2001 {
			t.Errorf("the quick watcher got %d messages, want 2001", got)
		}
		close(gate)
		slow.wantEnd(t, fault.Unavailable)
		if got := len(slow.take()); got > 1100 {
			t.Errorf("the slow watcher got %d messages, want no more than were buffered", got)
		}
	})
}

func TestHeartbeatsThatWaitedAreNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, gate := &memory{newest: 3}, make(chan struct{})
		w := begin(t, start(t, log), 0, gate) // the first message waits at the gate
		<-time.After(10*time.Second + 10*time.Millisecond)
		log.append(1)
		synctest.Wait()
		close(gate)
		// Of the forty heartbeats those are left that are younger than the interval.
		w.want(t, "+10.01s heartbeat 3", "+10.01s heartbeat 3", "+10.01s heartbeat 3", "+10.01s event 4")
	})
}

func TestALogThatWentBackEndsTheWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memory{newest: 50}
		hub := start(t, log)
		w := begin(t, hub, 0, nil)
		log.set(func(m *memory) { m.newest = 40 })
		<-time.After(poll)
		w.wantEnd(t, fault.Precondition) // what the watcher has seen counts no more
		begin(t, hub, 50, nil).wantEnd(t, fault.Precondition)
		fresh := begin(t, hub, 0, nil)
		log.append(1)
		fresh.want(t, "+0s heartbeat 40", "+0s event 41")
	})
}

func TestEventsThatWerePrunedUnreadEndTheWatches(t *testing.T) {
	t.Parallel()
	for _, left := range []int64{0, 2} { // none of the events that are missed is left, or two
		synctest.Test(t, func(t *testing.T) {
			log := &memory{newest: 50, deaf: true}
			hub := start(t, log)
			w := begin(t, hub, 0, nil)
			log.set(func(m *memory) { m.newest, m.pruned = 60, 60-left })
			begin(t, hub, 50, nil).wantEnd(t, fault.Precondition)
			<-time.After(poll)
			w.wantEnd(t, fault.Precondition)
			if got := begin(t, hub, 60-left, nil).take(); int64(len(got)) != 1+left {
				t.Errorf("a watch from what is left on got %v, want a heartbeat and %d events", got, left)
			}
		})
	}
}

func TestAWatchEndsWhenTheServiceStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, start(t, &memory{}), 0, nil)
		close(w.stop)
		w.wantEnd(t, fault.Unavailable)
	})
}
