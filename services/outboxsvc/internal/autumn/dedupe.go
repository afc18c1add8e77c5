package autumn

import (
	"net/http"

	"github.com/proliferate-ai/llm-proxy/services/outboxsvc/internal/relay"
)

// Dedupe marks a track so that Autumn applies it once.
type Dedupe interface {
	// Device is what billing keeps of it. It never changes.
	Device() string
	Mark(key string, body *Track, header http.Header)
	// Kind is what Autumn makes of a second attempt.
	Kind() relay.Dedupe
}

// Lock dedupes by a lock that is never finalized: its receipt is checked and
// written in one step with the deduction and lives for 24 hours. Without
// expires_at, and never beside an Idempotency-Key, whose 409 would hide the
// lock's.
type Lock struct{}

// Device implements Dedupe.
func (Lock) Device() string { return "autumn/lock" }

// Mark implements Dedupe.
func (Lock) Mark(key string, body *Track, _ http.Header) {
	body.Lock = &TrackLock{Enabled: true, LockID: key}
}

// Kind implements Dedupe.
func (Lock) Kind() relay.Dedupe { return relay.Collapsing }

// IdempotencyKey dedupes by the header, which Autumn claims before the work and
// lets go after a failure, whatever became of the deduction. So a charge in doubt
// is verified before it is sent again.
type IdempotencyKey struct{}

// Device implements Dedupe.
func (IdempotencyKey) Device() string { return "autumn/idempotency_key" }

// Mark implements Dedupe.
func (IdempotencyKey) Mark(key string, _ *Track, header http.Header) {
	header.Set("Idempotency-Key", key)
}

// Kind implements Dedupe.
func (IdempotencyKey) Kind() relay.Dedupe { return relay.Claiming }

// byDevice finds the way to dedupe that billing kept. Not ok: it is not Autumn's.
func byDevice(device string) (Dedupe, bool) {
	for _, d := range []Dedupe{Lock{}, IdempotencyKey{}} {
		if d.Device() == device {
			return d, true
		}
	}
	return nil, false
}
