package journal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func hold(t *testing.T, j *Journal[text], r text) int {
	t.Helper()
	slot, ok := j.Hold(r)
	if !ok {
		t.Fatalf("%q is not held", r)
	}
	return slot
}

func TestWhatIsHeldIsFoundAfterACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	first := hold(t, j, "a")
	hold(t, j, "b")
	j.Release(first)
	hold(t, j, "c") // in the place of a, whose tail must not show
	if err := j.Append("d"); err != nil {
		t.Fatal(err)
	}
	crash(t, j)
	next, found := open(t, dir)
	if !slices.Equal(found, []text{"c", "b", "d"}) {
		t.Errorf("found %q", found)
	}
	if err := next.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestWhatIsStillHeldOutlivesTheEndOfItsProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	hold(t, j, "a")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, found := open(t, dir); !slices.Equal(found, []text{"a"}) {
		t.Errorf("found %q", found)
	}
}

func TestAProcessThatLeftNothingLeavesNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	j.Release(hold(t, j, "a"))
	crash(t, j)
	next, found := open(t, dir)
	if len(found) != 0 || len(files(t, dir)) != 1 {
		t.Errorf("found %q, files %v", found, files(t, dir))
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestWhatDoesNotFitIsNotHeld(t *testing.T) {
	t.Parallel()
	j, _ := open(t, t.TempDir())
	if _, ok := j.Hold(text(strings.Repeat("x", slotSize))); ok {
		t.Error("a record is held that is longer than a slot")
	}
	var last int
	for range maxSlots {
		last = hold(t, j, "a")
	}
	if _, ok := j.Hold("b"); ok {
		t.Error("a record is held for which there is no slot")
	}
	j.Release(last)
	hold(t, j, "b")
}

func TestATornSlotHidesNoOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	for _, r := range []text{"a", "b", "c"} {
		hold(t, j, r)
	}
	j.held.pages[slotSize+headerSize] = 0xff
	crash(t, j)
	if _, found := open(t, dir); !slices.Equal(found, []text{"a", "c"}) {
		t.Errorf("found %q", found)
	}
}

// TestAPageThatCannotBeWrittenHoldsNothing cuts the file, so that the kernel answers
// a write with SIGBUS, as for a disk that failed.
func TestAPageThatCannotBeWrittenHoldsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	kept := hold(t, j, "kept")
	if err := os.Truncate(slotsOf(j.file), 0); err != nil {
		t.Fatal(err)
	}
	if _, ok := j.Hold("lost"); ok {
		t.Error("a page holds a record that is not there")
	}
	j.Release(kept)
	if err := os.Truncate(slotsOf(j.file), maxSlots*slotSize); err != nil {
		t.Fatal(err)
	}
	for _, r := range []text{"a", "b"} {
		if hold(t, j, r) == kept {
			t.Error("a slot that could not be cleared was used again")
		}
	}
	crash(t, j)
	if _, found := open(t, dir); !slices.Equal(found, []text{"a", "b"}) {
		t.Errorf("found %q", found)
	}
}

// TestAFaultOfTheProgramIsNotThatOfAPage has a record that panics when it is encoded.
func TestAFaultOfTheProgramIsNotThatOfAPage(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the panic is lost")
		}
	}()
	touch(func() bool { panic("of the program") })
}

// TestTheSlotsAreAllocatedAhead in a journal, and where the file system leaves that to
// zeros: no write to them can find the disk full.
func TestTheSlotsAreAllocatedAhead(t *testing.T) {
	t.Parallel()
	j, _ := open(t, t.TempDir())
	zeros, err := os.Create(filepath.Join(t.TempDir(), "zeros"))
	if err != nil {
		t.Fatal(err)
	}
	defer zeros.Close()
	if err := fillWithZeros(zeros, maxSlots*slotSize); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{slotsOf(j.file), zeros.Name()} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		blocks := info.Sys().(*syscall.Stat_t).Blocks // of 512 bytes
		if info.Size() != maxSlots*slotSize || blocks*512 < info.Size() {
			t.Errorf("%s: %d bytes in %d blocks", name, info.Size(), blocks)
		}
	}
}

func TestAFileThatCannotBeMappedIsNamed(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "x.held")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600) // a shared mapping reads too
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := share(f, slotSize); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("error %v, want one with %s", err, name)
	}
}

// TestASparseFileOfSlotsIsRead has a process start after one of a version that wrote
// its slots with write: the file ends with its last record.
func TestASparseFileOfSlotsIsRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1-1.journal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "1-1.held"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, record := range map[int64]string{
		0:            "\x03\x00\x00\x00\x3b\x49\xf7\x9c\"a\"",
		2 * slotSize: "\x03\x00\x00\x00\xa2\xe1\x10\xa8\"b\"",
	} {
		if _, err := f.WriteAt([]byte(record), at); err != nil {
			t.Fatal(err)
		}
	}
	if _, found := open(t, dir); !slices.Equal(found, []text{"a", "b"}) {
		t.Errorf("found %q", found)
	}
}

// TestCloseWaitsForNobody closes a journal that others use: they are told no, or
// release what they hold, and the mapping goes with the last of them.
func TestCloseWaitsForNobody(t *testing.T) {
	t.Parallel()
	for range 5 {
		dir := t.TempDir()
		j, _ := open(t, dir)
		kept := hold(t, j, "kept")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for {
					slot, ok := j.Hold("a")
					if !ok {
						return
					}
					j.Release(slot)
				}
			})
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		if _, ok := j.Hold("b"); ok {
			t.Error("a closed journal holds a record")
		}
		if j.held.pages == nil {
			t.Fatal("the mapping of a record that is held is gone")
		}
		j.Release(kept)
		if j.held.pages != nil {
			t.Error("the mapping stays after its last record")
		}
		if _, found := open(t, dir); len(found) != 0 {
			t.Errorf("found %q", found)
		}
	}
}

// TestManyHoldAtOnce is for the race detector, and that no slot is given to two.
func TestManyHoldAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	var all sync.WaitGroup
	for _, name := range []text{"a", "b", "c", "d"} {
		all.Go(func() {
			for range 200 {
				slot, ok := j.Hold(name)
				if !ok {
					t.Error("not held")
					return
				}
				if held, _, whole := next[text](j.held.page(slot)); !whole || held != name {
					t.Errorf("the page of %s holds %q", name, held)
				}
				j.Release(slot)
			}
		})
	}
	all.Wait()
	if !j.held.unused() {
		t.Error("something is still held")
	}
}
