package sock

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pair is two ends of a connection.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return of(t, dialled), of(t, accepted)
}

func of(t *testing.T, nc net.Conn) *Conn {
	t.Helper()
	c, err := New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWhatIsWrittenIsRead sends more than the kernel holds, so that both sides wait.
func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	sent := make([]byte, 32<<20+7)
	rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		n, err := a.Write(sent)
		if n != len(sent) {
			t.Errorf("Write = %d, want %d", n, len(sent))
		}
		wrote <- errors.Join(err, a.Close())
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes, %v, want the %d that were written", len(got), err, len(sent))
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // as io.Reader says
		t.Errorf("Read after the end = %d, %v", n, err)
	}
}

func TestNothingToReadOrWrite(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	if n, err := a.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of nothing = %d, %v", n, err)
	}
	if n, err := a.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing = %d, %v", n, err)
	}
}

// TestAPeekTakesNothingAway looks at a connection before anything has come, after, and when
// the other side is gone.
func TestAPeekTakesNothingAway(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	var n int
	var again bool
	look := func() {
		t.Helper()
		err := b.Raw().Control(func(fd uintptr) { n, again, _ = Peek(fd, make([]byte, 1)) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if look(); n != 0 || !again {
		t.Errorf("before anything has come: %d bytes, again %t", n, again)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	await := make([]byte, 2)
	for range 2 { // what is awaited is there still
		err := b.Raw().Read(func(fd uintptr) bool {
			n, again, _ = Peek(fd, await)
			return !again
		})
		if err != nil || n != 1 {
			t.Fatalf("%d bytes, %v, want the one that was sent", n, err)
		}
	}
	if n, err := io.ReadFull(b, await); n != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("%d bytes, %v, want one and the end", n, err)
	}
	if look(); n != 0 || again {
		t.Errorf("at the end: %d bytes, again %t", n, again)
	}
}

func TestDeadlinesEndReadsAndWrites(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := a.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %d, %v", n, err)
	}
	type result struct {
		n   int
		err error
	}
	written := make(chan result, 1)
	go func() {
		n, err := a.Write(make([]byte, 64<<20))
		written <- result{n, err}
	}()
	if _, err := b.Read(make([]byte, 1)); err != nil { // it has begun
		t.Fatal(err)
	}
	if err := a.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if w := <-written; w.n == 0 || !errors.Is(w.err, os.ErrDeadlineExceeded) {
		t.Errorf("Write = %d, %v, want what was taken and the deadline", w.n, w.err)
	}
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	go a.Close()
	if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %d, %v", n, err)
	}
}

func TestAResetIsAnError(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := b.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %d, %v", n, err)
	}
	if n, err := a.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write = %d, %v", n, err)
	}
}

func TestAPipeIsNoSocket(t *testing.T) {
	t.Parallel()
	a, _ := net.Pipe()
	if _, err := New(a); err == nil {
		t.Error("New takes what has no file descriptor")
	}
}

// TestErrorsAreNets has the other side break the connection off, which callers tell from
// their own faults by net's type.
func TestErrorsAreNets(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	if err := theirs.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	_, read := ours.Read(make([]byte, 1))
	_, write := ours.Write([]byte("x"))
	for op, err := range map[string]error{"read": read, "write": write} {
		if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != op || e.Addr == nil {
			t.Errorf("%s: %v (%T), want net's error", op, err, err)
		}
	}
	if !errors.Is(read, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", read)
	}
}

// shelf is a buffer that notes what is asked of it.
type shelf struct {
	buf   []byte
	taken atomic.Bool
	left  chan struct{} // has one for each time that nothing had come
}

func (s *shelf) Take() []byte {
	s.taken.Store(true)
	return s.buf
}

func (s *shelf) Leave() {
	s.taken.Store(false)
	s.left <- struct{}{}
}

// TestFillHasNoBufferWhileItWaits reads what comes after it began to wait, and the end.
func TestFillHasNoBufferWhileItWaits(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	s := &shelf{buf: make([]byte, 10), left: make(chan struct{}, 10)}
	go func() {
		<-s.left
		if s.taken.Load() {
			t.Error("it waits with a buffer")
		}
		b.Write([]byte("hello")) //nolint:errcheck // the other side reads it
		b.Close()
	}()
	if n, err := a.Fill(s); n != 5 || err != nil || !s.taken.Load() || string(s.buf[:n]) != "hello" {
		t.Errorf("Fill = %d, %v, %q", n, err, s.buf[:n])
	}
	if n, err := a.Fill(s); n != 0 || err != io.EOF { //nolint:errorlint // as io.Reader says
		t.Errorf("Fill at the end = %d, %v", n, err)
	}
	if n, err := a.Read(make([]byte, 10)); n != 0 || err != io.EOF { //nolint:errorlint // as above
		t.Errorf("Read after Fill = %d, %v", n, err)
	}
	a.Close()
	if n, err := a.Fill(s); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Fill of what is closed = %d, %v", n, err)
	}
}
