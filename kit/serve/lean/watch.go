package lean

import "time"

// tickTime is how often the watch looks. Timeouts and the news that a client has
// left may be late by that much; in return no request sets a timer.
const tickTime = 100 * time.Millisecond

// settled is how many ticks an answer must have run, or sent nothing, before its
// client is looked after: most are over by then, and those that send find out by
// themselves.
const settled = 2

// newGrace is how long, in ticks, a connection that has sent nothing yet is
// spared while draining, as in net/http: its first request may be on its way.
const newGrace = int64(5 * time.Second / tickTime)

func ticks(d time.Duration) int64 { return int64((d + tickTime - 1) / tickTime) }

// after is the tick at which a timeout ends; 0: never.
func (s *Server) after(timeout int64) int64 {
	if timeout == 0 {
		return 0
	}
	return s.tick.Load() + timeout + 1 // the tick that runs counts for nothing
}

func (s *Server) watch() {
	defer close(s.watched)
	t := time.NewTicker(tickTime)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.tick.Add(1)
			s.look()
		}
	}
}

func (s *Server) endWatch() {
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.watched
}

// look goes over all connections once.
func (s *Server) look() {
	now, draining := s.tick.Load(), s.draining.Load()
	for _, c := range s.all(nil) {
		c.look(now, draining)
	}
}

// look closes a connection whose time is over, and cancels the request of a
// client that has left. The latter may come too late, when the connection is at
// the next request or handed over: then it peeks for nothing, and cancels what
// has ended.
func (c *conn) look(now int64, draining bool) {
	c.mu.Lock()
	over := c.until != 0 && now >= c.until
	if draining {
		over = over || c.phase == idle || c.phase == fresh && now-c.born >= newGrace
	}
	if over {
		c.close()
	}
	w := c.answering
	c.mu.Unlock()
	if w == nil {
		return
	}
	if over || now-w.since.Load() >= settled && w.body.whole.Load() && hasLeft(c.raw) {
		w.cancel()
	}
}
