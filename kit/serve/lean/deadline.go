package lean

import (
	"sync"
	"time"
)

// deadline is one that a handler sets for reads, or writes. The connection gets it only
// when there is one: most bodies are here with their head, and most answers are sent
// when the handler has returned, so that nothing waits for a timer.
type deadline struct {
	apply func(t time.Time) error // sets the connection's

	mu            sync.Mutex
	want, applied time.Time
	running       bool // a read or write is
}

// set sets it, for the read or write that runs too.
func (d *deadline) set(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.want = t; !d.running {
		return nil
	}
	return d.put()
}

// begin says that a read or write begins, and end that it has ended.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = true
	return d.put()
}

func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = false
}

// clear takes it off the connection.
func (d *deadline) clear() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want = time.Time{}
	return d.put()
}

// put needs mu.
func (d *deadline) put() error {
	if d.applied.Equal(d.want) {
		return nil
	}
	d.applied = d.want
	return d.apply(d.want)
}
