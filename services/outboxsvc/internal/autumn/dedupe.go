package autumn

import "net/http"

// Dedupe marks a track so that Autumn applies it once.
type Dedupe interface {
	Mark(key string, body *Track, header http.Header)
}

// Lock dedupes by a lock that is never finalized: its receipt is checked and
// written in one step with the deduction and lives for 24 hours. Without
// expires_at, and never beside an Idempotency-Key, whose 409 would hide the
// lock's.
type Lock struct{}

// Mark implements Dedupe.
func (Lock) Mark(key string, body *Track, _ http.Header) {
	body.Lock = &TrackLock{Enabled: true, LockID: key}
}
