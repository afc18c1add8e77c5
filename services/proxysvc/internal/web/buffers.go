package web

import (
	"math/bits"
	"sync"
)

// buffers are those of bodies that nobody reads any more, by size. A body of a megabyte
// would be cleared by the allocator first, and collected after a moment.
type buffers struct {
	mu   sync.Mutex
	kept int // bytes in all
	of   [largest - smallest + 1][][]byte
}

// Sizes of buffers are powers of two; larger ones are made for their body. keepMost
// bounds what is kept of them.
const (
	smallest = 11 // 2 KB
	largest  = 23 // 8 MB
	keepMost = 32 << 20
)

// get returns an empty buffer of at least so many bytes: the one that came back last, if
// there is one.
func (b *buffers) get(size int) []byte {
	class := classOf(size)
	if class > largest {
		return make([]byte, 0, size)
	}
	b.mu.Lock()
	of := &b.of[class-smallest]
	if n := len(*of) - 1; n >= 0 {
		buf := (*of)[n]
		(*of)[n] = nil
		*of = (*of)[:n]
		b.kept -= cap(buf)
		b.mu.Unlock()
		return buf
	}
	b.mu.Unlock()
	return make([]byte, 0, 1<<class)
}

// put takes a buffer back that nobody reads.
func (b *buffers) put(buf []byte) {
	class := classOf(cap(buf))
	b.mu.Lock()
	defer b.mu.Unlock()
	if class > largest || cap(buf) != 1<<class || b.kept+cap(buf) > keepMost {
		return // the garbage collector has it
	}
	b.kept += cap(buf)
	b.of[class-smallest] = append(b.of[class-smallest], buf[:0])
}

// classOf is the power of two that a size fits in.
func classOf(size int) int { return max(bits.Len(uint(max(size, 1)-1)), smallest) }

// room is how much memory a buffer of a size takes.
func room(size int64) int64 {
	if class := classOf(int(size)); class <= largest {
		return 1 << class
	}
	return size
}
