package journal

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
)

// A record is held in a slot of its own, a page of the file: what was written to
// the page survives the process. A page begins with its record, and is free when
// that is not whole.
const (
	slotSize = 4096 // bytes
	maxSlots = 1024
)

// slots is the file of held records, mapped into memory: to write a page is no
// call of the kernel. Many goroutines may use it at once.
type slots struct {
	mu     sync.Mutex
	pages  []byte // nil once nobody can need them
	free   []int  // those given back, the last one first: its page is warm
	used   int    // how many were ever taken
	closed bool
}

// newSlots makes a file. All of its blocks are allocated, so that a disk that is
// full shows here.
func newSlots(name string) (*slots, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the operator's own directory
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer f.Close() // the mapping does not need it
	const size = maxSlots * slotSize
	if err := reserve(f, size); err != nil {
		return nil, fmt.Errorf("journal: allocate %d bytes: %w", size, err)
	}
	pages, err := share(f, size)
	if err != nil {
		return nil, err
	}
	return &slots{pages: pages}, nil
}

// reserve allocates the first bytes of an empty file, which are zeros.
func reserve(f *os.File, size int64) error {
	if err := allocate(f, size); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return fillWithZeros(f, size)
}

func fillWithZeros(f *os.File, size int64) error {
	if _, err := f.Write(make([]byte, size)); err != nil {
		return err
	}
	return f.Sync() // some file systems find out only now that they are full
}

// share maps the beginning of a file. What is written there is in the page cache at
// once, as with write.
func share(f *os.File, size int) ([]byte, error) {
	pages, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", &os.PathError{Op: "mmap", Path: f.Name(), Err: err})
	}
	return pages, nil
}

// take is a free slot, and its page until it is given back.
func (s *slots) take() (slot int, page []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := len(s.free); {
	case s.closed:
		return 0, nil, false
	case n > 0:
		slot, s.free = s.free[n-1], s.free[:n-1]
	case s.used < maxSlots:
		slot = s.used
		s.used++
	default:
		return 0, nil, false
	}
	return slot, s.page(slot), true
}

// page is a taken slot's, no longer than the slot.
func (s *slots) page(slot int) []byte {
	return s.pages[slot*slotSize : (slot+1)*slotSize : (slot+1)*slotSize]
}

func (s *slots) give(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, slot)
	s.unmap()
}

// close lets nobody take a slot any more. Those that are taken can still be written
// and given back: the mapping ends with the last of them.
func (s *slots) close() (empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.unmap()
	return s.unused()
}

// unused says that nothing is taken. The caller holds mu.
func (s *slots) unused() bool { return len(s.free) == s.used }

func (s *slots) unmap() {
	if s.closed && s.unused() && s.pages != nil {
		syscall.Munmap(s.pages) //nolint:errcheck // it fails only for what is not mapped
		s.pages = nil
	}
}

// touch runs what writes to a page. Not ok: the page cannot be written, since the
// file was cut, or its disk has failed, or is full and its file system allocates
// blocks anew (btrfs, ZFS). The kernel says that by SIGBUS, which would end the
// process.
func touch(write func() bool) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case interface{ Addr() uintptr }: // of a fault
			ok = false
		default:
			panic(r)
		}
	}()
	return write()
}

// Hold keeps a record until Release, in case this process is killed: it is copied
// to the page cache, without a call of the kernel and without a sync. Not ok: there
// is no room, or the record is too long, or the disk failed, or the journal is
// closed. Hold and Release may be called by many goroutines.
func (j *Journal[R]) Hold(r R) (slot int, ok bool) {
	slot, page, ok := j.held.take()
	if !ok {
		return 0, false
	}
	ok = touch(func() bool {
		// What does not fit is moved elsewhere, and the page keeps a header of zeros.
		record, err := encode(page[:0], r)
		return err == nil && len(record) <= slotSize
	})
	if !ok {
		j.held.give(slot)
		return 0, false
	}
	return slot, true
}

// Release drops what a slot holds. If the disk fails the slot is not used again,
// and the next process finds the record: it must bear that.
func (j *Journal[R]) Release(slot int) {
	page := j.held.page(slot)
	if touch(func() bool { clear(page[:headerSize]); return true }) {
		j.held.give(slot)
	}
}

// readSlots returns what a file of slots holds; a file that is not there holds
// nothing. The file may end early: not all versions of this program allocate it.
func readSlots[R any](name string) ([]R, error) {
	text, err := os.ReadFile(name) //nolint:gosec // the operator's own directory
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []R
	for at := 0; at < len(text); at += slotSize {
		if r, _, whole := next[R](text[at:min(at+slotSize, len(text))]); whole {
			records = append(records, r)
		}
	}
	return records, nil
}
