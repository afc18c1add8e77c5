package litellm

import "time"

// SetNow stops a server's clock.
func SetNow(s *Server, now time.Time) { s.now = func() time.Time { return now } }
