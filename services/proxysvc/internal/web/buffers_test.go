package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/proxy"
)

func TestBuffersAreUsedAgainBySize(t *testing.T) {
	t.Parallel()
	var b buffers
	for _, tt := range []struct{ size, capacity int }{
		{0, 2 << 10}, {1, 2 << 10}, {2 << 10, 2 << 10}, {2<<10 + 1, 4 << 10}, {200 << 10, 256 << 10}, {1 << 20, 1 << 20}, {8 << 20, 8 << 20}, {8<<20 + 1, 8<<20 + 1}, {MaxBody + 1, MaxBody + 1},
	} {
		buf := b.get(tt.size)
		if len(buf) != 0 || cap(buf) != tt.capacity || room(int64(tt.size)) != int64(tt.capacity) {
			t.Errorf("get(%d) has %d of %d bytes, counted as %d, want none of %d", tt.size, len(buf), cap(buf), room(int64(tt.size)), tt.capacity)
		}
		buf = append(buf, "x"...)
		b.put(buf)
		again := b.get(tt.size)
		if same := &again[:1][0] == &buf[0]; len(again) != 0 || same != (tt.capacity <= 8<<20) {
			t.Errorf("get(%d) is the one that came back: %t, with %d bytes in it", tt.size, same, len(again))
		}
		if next := b.get(tt.size); &next[:1][0] == &again[:1][0] {
			t.Errorf("get(%d) gave the same buffer twice", tt.size)
		}
	}
	if b.kept != 0 {
		t.Errorf("%d bytes are kept, want none", b.kept)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	t.Parallel()
	var b buffers
	for range 40 {
		b.put(make([]byte, 1<<20))
		b.put(make([]byte, 2<<10))
	}
	b.put(make([]byte, 3<<10)) // of no size of its own
	if b.kept > keepMost || b.kept < keepMost-1<<20 {
		t.Errorf("%d bytes are kept, want nearly %d", b.kept, keepMost)
	}
}

// pieces is a body that comes in pieces of up to so many bytes. It notes how much each
// read has room for.
type pieces struct {
	sizes []int
	left  int
	rooms []int
}

func (p *pieces) Read(to []byte) (int, error) {
	p.rooms = append(p.rooms, len(to))
	n := min(len(to), p.left)
	if len(p.sizes) > 0 {
		n = min(n, p.sizes[0])
		p.sizes = p.sizes[1:]
	}
	if p.left -= n; p.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

func TestFewReadsTakeABody(t *testing.T) {
	t.Parallel()
	const plenty = 1 << 30
	for _, tt := range []struct {
		sizes, rooms []int
		size         int
		held, most   int64
	}{
		{nil, []int{2 << 10}, 2 << 10, 2 << 10, plenty},
		{[]int{15 << 10}, []int{16 << 10, 241 << 10}, 200 << 10, 256 << 10, plenty}, // what came with the head
		{[]int{16 << 10}, []int{16 << 10, 1008 << 10}, 1 << 20, 1 << 20, plenty},
		{[]int{16 << 10}, []int{16 << 10, 1008 << 10}, 1 << 20, 1 << 20, 2 << 20},
		{[]int{16 << 10}, []int{16 << 10, 240 << 10, 768 << 10}, 1 << 20, 1 << 20, 2<<20 - 1}, // more than half of what may be held
		{[]int{16 << 10}, []int{16 << 10, 240 << 10, 768 << 10}, 1 << 20, 1 << 20, 1 << 20},
		{[]int{16 << 10}, []int{16 << 10, 240 << 10, 4<<20 - 256<<10}, 4 << 20, 4 << 20, plenty},
		{[]int{15 << 10}, []int{16 << 10, 1 << 10}, 16 << 10, 16 << 10, plenty},
	} {
		body := &pieces{sizes: tt.sizes, left: tt.size}
		b := bodies{limits: Limits{BodyMemory: tt.most, BodyTime: time.Minute, BodyIdle: time.Minute}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/messages", body)
		r.ContentLength = int64(tt.size)
		got, _, err := b.read(httptest.NewRecorder(), r)
		if err != nil || len(got) != tt.size || !slices.Equal(body.rooms, tt.rooms) || b.held.Load() != tt.held {
			t.Errorf("%d bytes, of %d, came by reads of %v, %d held, %v, want reads of %v, %d held", len(got), tt.size, body.rooms, b.held.Load(), err, tt.rooms, tt.held)
		}
	}
}

// TestALittleOfALongBodyHoldsLittle has clients send the beginning of a body and no more:
// they hold no more than half of the memory in whole buffers, and others still get some.
func TestALittleOfALongBodyHoldsLittle(t *testing.T) {
	t.Parallel()
	const most = 8 << 20
	b := bodies{limits: Limits{BodyMemory: most, BodyTime: time.Minute, BodyIdle: time.Minute}}
	begin := func(sent int, claimed int64) *arrival {
		a := &arrival{bodies: &b}
		for len(a.buf) < sent {
			if err := a.grow(claimed); err != nil {
				t.Fatalf("%d bytes of %d: %v with %d held", sent, claimed, err, b.held.Load())
			}
			a.buf = a.buf[:min(sent, cap(a.buf))]
		}
		if a.full(claimed) {
			if err := a.grow(claimed); err != nil {
				t.Fatalf("%d bytes of %d: %v with %d held", sent, claimed, err, b.held.Load())
			}
		}
		return a
	}
	for _, tt := range []struct {
		sent    int
		claimed int64
		held    int64
	}{
		{0, 32 << 20, 16 << 10},
		{1, 32 << 20, 16 << 10},
		{16<<10 - 5000, 1 << 20, 16 << 10},
		{16 << 10, 32 << 20, 256 << 10},
		{16 << 10, 2<<20 + 1, 256 << 10},
		{16 << 10, 2 << 20, 2 << 20},
		{64 << 10, 8 << 20, 256 << 10},
	} {
		a := begin(tt.sent, tt.claimed)
		if a.held != tt.held || b.held.Load() != tt.held || int64(cap(a.buf)) != tt.held {
			t.Errorf("%d bytes of %d hold %d, in a buffer of %d, want %d", tt.sent, tt.claimed, a.held, cap(a.buf), tt.held)
		}
		a.free()
	}
	var all []*arrival
	for range 10 {
		all = append(all, begin(16<<10, 1<<20))
	}
	if held := b.held.Load(); held != 4<<20+6*256<<10 {
		t.Errorf("ten beginnings of 16 KB hold %d KB, want four whole buffers, and six of 256 KB", held>>10)
	}
	for _, a := range all {
		a.free()
	}
	if held := b.held.Load(); held != 0 {
		t.Errorf("%d bytes are held by nobody", held)
	}
}

// TestWhoReadsABodyAfterAPanicIsNotKnown serves requests that end well, with an error and
// in a panic: after the last one the buffer is nobody's, and its memory is free again.
func TestWhoReadsABodyAfterAPanicIsNotKnown(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		do   func() error
		kept int
	}{
		"well":             {func() error { return nil }, 16 << 10},
		"with an error":    {func() error { return errors.New("no") }, 16 << 10},
		"with a panic":     {func() error { panic("no") }, 0},
		"by its end early": {func() error { panic(http.ErrAbortHandler) }, 0},
	} {
		h := New(nil, Limits{BodyMemory: 1 << 20, BodyTime: time.Minute, BodyIdle: time.Minute, ClientTimeout: time.Minute}, func(string, error) {})
		func() {
			defer func() { recover() }() //nolint:errcheck // it is the test's own
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/messages", strings.NewReader(strings.Repeat("x", 10_000)))
			h.serve(httptest.NewRecorder(), r, proxy.Messages, func(_ context.Context, c proxy.Call, _ proxy.Sink) error {
				if held := h.bodies.held.Load(); held != 16<<10 || len(c.Body) != 10_000 {
					t.Errorf("%s: %d bytes are held for %d", name, held, len(c.Body))
				}
				return tt.do()
			})
		}()
		if held := h.bodies.held.Load(); held != 0 || h.bodies.buffers.kept != tt.kept {
			t.Errorf("%s: %d bytes are held, %d kept, want none and %d", name, held, h.bodies.buffers.kept, tt.kept)
		}
	}
}
