package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// text is a record.
type text string

func (t text) AppendJSON(buf []byte) ([]byte, error) { return strconv.AppendQuote(buf, string(t)), nil }

func open(t *testing.T, dir string) (*Journal[text], []text) {
	t.Helper()
	j, found, err := Open[text](dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() }) // the test may have closed it
	return j, found
}

// crash ends a journal as kill -9 does: the lock goes with the process, the file
// stays.
func crash(t *testing.T, j *Journal[text]) {
	t.Helper()
	if err := unlock(j.file); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestACloseEndsTheLockOfEveryCopy of the file: a process that is forked at that
// moment has one until it executes its own program.
func TestACloseEndsTheLockOfEveryCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := j.Append("a"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // its own file, then as one that it took over
		for _, f := range append(j.old, j.file) {
			forked, err := syscall.Dup(int(f.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Close(forked)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		var found []text
		if j, found = open(t, dir); !slices.Equal(found, []text{"a"}) {
			t.Errorf("found %q", found)
		}
	}
}

func TestWhatWasAppendedIsFoundAfterACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := j.Append("a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := j.Append("c"); err != nil {
		t.Fatal(err)
	}
	crash(t, j)
	next, found := open(t, dir)
	if !slices.Equal(found, []text{"a", "b", "c"}) {
		t.Errorf("found %q", found)
	}
	crash(t, next) // before it could do anything with them
	for _, f := range next.old {
		unlock(f) //nolint:errcheck // as the process's end does
	}
	last, found := open(t, dir)
	if !slices.Equal(found, []text{"a", "b", "c"}) {
		t.Errorf("the second time: found %q", found)
	}
	if err := last.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := last.Close(); err != nil || len(files(t, dir)) != 0 {
		t.Errorf("%v, left %v", err, files(t, dir))
	}
}

func TestALivingProcessKeepsItsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := j.Append("mine"); err != nil {
		t.Fatal(err)
	}
	other, found := open(t, dir)
	if len(found) != 0 {
		t.Errorf("found %q of a living process", found)
	}
	if err := other.Forget(); err != nil || len(files(t, dir)) != 2 {
		t.Errorf("%v, files %v", err, files(t, dir))
	}
}

// TestAFileThatWasTakenAlongIsNobodys locks a file after another process has removed it,
// and after it has made another one of that name.
func TestAFileThatWasTakenAlongIsNobodys(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "1-1.journal")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := lock(f); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := lock(f); !errors.Is(err, errTaken) {
		t.Errorf("a removed file: %v", err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lock(f); !errors.Is(err, errTaken) {
		t.Errorf("another file of that name: %v", err)
	}
}

func TestForgetForgets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := j.Append("a"); err != nil {
		t.Fatal(err)
	}
	if err := j.Forget(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append("b"); err != nil {
		t.Fatal(err)
	}
	crash(t, j)
	if _, found := open(t, dir); !slices.Equal(found, []text{"b"}) {
		t.Errorf("found %q", found)
	}
}

// TestATornFileLosesOnlyItsTail cuts and damages a journal at random: what is
// found is always a beginning of what was written.
func TestATornFileLosesOnlyItsTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	var written []text
	for n := range 40 {
		written = append(written, text(fmt.Sprintf("record %d %s", n, bytes.Repeat([]byte("x"), n*7))))
	}
	if err := j.Append(written...); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(j.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		torn := slices.Clone(whole[:r.IntN(len(whole)+1)])
		if len(torn) > 0 && r.IntN(2) == 0 {
			torn[r.IntN(len(torn))] ^= byte(1 + r.IntN(255))
		}
		found, err := read[text](bytes.NewReader(torn))
		if err != nil || len(found) > len(written) || !slices.Equal(found, written[:len(found)]) {
			t.Fatalf("seed %d: %d records, %v", seed, len(found), err)
		}
	}
}

func TestAFullDiskAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := j.Append("before"); err != nil {
		t.Fatal(err)
	}
	mine := j.file
	full, err := os.Open(mine.Name()) // it cannot be written, as a full disk cannot
	if err != nil {
		t.Fatal(err)
	}
	j.file = full
	if err := j.Append("lost"); err == nil {
		t.Error("a full disk took a record")
	}
	j.file = mine
	full.Close()
	if err := j.Append("after"); err != nil {
		t.Fatal(err)
	}
	crash(t, j)
	if _, found := open(t, dir); !slices.Equal(found, []text{"before", "after"}) {
		t.Errorf("found %q", found)
	}
}

func TestADirectoryThatCannotBeUsedIsNamed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open[text](filepath.Join(file, "x")); err == nil {
		t.Error("a directory below a file was used")
	}
}

// FuzzRead reads any bytes: no panic, and what was written reads back.
func FuzzRead(f *testing.F) {
	f.Add([]byte("\x03\x00\x00\x00abcd\"a\""))
	f.Add(bytes.Repeat([]byte{255}, 20))
	f.Fuzz(func(t *testing.T, file []byte) {
		if _, err := read[text](bytes.NewReader(file)); err != nil {
			t.Error(err)
		}
	})
}
