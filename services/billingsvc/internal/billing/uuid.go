package billing

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
)

// newUUID makes a UUIDv7: 48 bits of milliseconds, 12 of their fraction, then 62
// random bits, so that ids sort by the time they were made.
func newUUID(now time.Time) string {
	var u [16]byte
	rand.Read(u[:]) // crypto/rand never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli())) // after 1970
	copy(u[:6], ms[2:])
	fraction := uint16(now.UnixNano() % 1e6 * 4096 / 1e6)
	binary.BigEndian.PutUint16(u[6:8], 0x7000|fraction)
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
