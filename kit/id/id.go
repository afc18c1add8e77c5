// Package id makes identifiers: a prefix and 26 characters that sort by the
// time they were made, to the millisecond (a ULID: 48 bits of time and 80
// random bits in Crockford's base32).
package id

import (
	"crypto/rand"
	"encoding/base32"
	"time"
)

var encoding = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// New returns prefix and 26 characters of 0-9 and A-Z, never used before.
func New(prefix string, now time.Time) string {
	// 130 bits are written for 128: two zero bits lead, as in every ULID.
	var raw [17]byte
	ms := uint64(now.UnixMilli()) //nolint:gosec // positive until the year 10889
	for i := range 6 {
		raw[1+i] = byte(ms >> (40 - 8*i))
	}
	rand.Read(raw[7:]) //nolint:errcheck,gosec // crypto/rand.Read never fails; it ends the program instead
	// 17 bytes make 28 characters; the first byte is zero and gives the first
	// one and a half, of which the ULID keeps the half.
	return prefix + shift(raw)
}

// shift drops the six leading zero bits, so that 130 bits fill 26 characters.
func shift(raw [17]byte) string {
	var out [17]byte
	for i := range 16 {
		out[i] = raw[i]<<6 | raw[i+1]>>2
	}
	out[16] = raw[16] << 6
	return encoding.EncodeToString(out[:])[:26]
}
