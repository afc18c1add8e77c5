package key

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

const idPrefix = "key_"

// crockford is Crockford's base32 in lower case: no i, l, o, u, and in the
// order of ASCII, so that ids sort as their bytes do.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newID makes an id that sorts by its time: 48 bits of milliseconds, 16 of
// the fraction, 64 random ones.
func newID(now time.Time) string {
	var b [16]byte
	nanos := now.UnixNano()
	millis, fraction := uint64(nanos/1e6), uint64(nanos%1e6) //nolint:gosec // now is after 1970
	binary.BigEndian.PutUint64(b[:8], millis<<16|fraction<<16/1e6)
	rand.Read(b[8:]) //nolint:errcheck,gosec // crypto/rand.Read never fails; it ends the program instead
	return idPrefix + crockford.EncodeToString(b[:])
}

// isToken says whether s has the form of a token: 64 lower-case hex digits.
func isToken(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
