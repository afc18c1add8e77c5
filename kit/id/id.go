// Package id makes identifiers: a prefix and 26 characters that sort by the time
// they were made.
package id

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// crockford is Crockford's base32 in lower case: no i, l, o, u, and in the order
// of ASCII, so that ids sort as their bytes do.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// New returns prefix and 26 characters of 0-9 and a-z, never used before: 48
// bits of milliseconds, 16 of their fraction, 64 random ones.
func New(prefix string, now time.Time) string {
	var b [16]byte
	nanos := now.UnixNano()
	millis, fraction := uint64(nanos/1e6), uint64(nanos%1e6) // now is after 1970
	binary.BigEndian.PutUint64(b[:8], millis<<16|fraction<<16/1e6)
	rand.Read(b[8:]) // crypto/rand.Read never fails; it ends the program instead
	return string(crockford.AppendEncode(append(make([]byte, 0, 32), prefix...), b[:]))
}
