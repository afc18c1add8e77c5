package sse

import (
	"bytes"
	"testing"
)

// TestWhereALineEnds has line ends at every place among bytes that are nearly ones.
func TestWhereALineEnds(t *testing.T) {
	t.Parallel()
	for _, filler := range []byte("a\x00\x09\x0b\x0c\x0e\x8a\x8d\xff") {
		for size := range 26 {
			line := bytes.Repeat([]byte{filler}, size)
			if got := lineLen(line); got != size {
				t.Fatalf("lineLen(%q) = %d", line, got)
			}
			for first := range line {
				for second := range first + 1 { // nearer to the beginning, or the same
					for _, ends := range []string{"\n\n", "\r\r", "\n\r", "\r\n"} {
						p := bytes.Clone(line)
						p[first], p[second] = ends[0], ends[1]
						if got := lineLen(p); got != second {
							t.Fatalf("lineLen(%q) = %d, want %d", p, got, second)
						}
					}
				}
			}
		}
	}
}
