// Package journal keeps records in local files until they are where they belong,
// and gives them to the next process that opens the directory. What was appended is
// on the disk when Append returns; what is held (see Hold) survives a kill -9, but
// not the machine. A record that was torn by a crash was never acknowledged, and
// ends its file.
package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Record is what a journal keeps.
type Record interface {
	// AppendJSON appends the record as encoding/json reads it. It only appends:
	// the buffer may be a page of held records.
	AppendJSON(buf []byte) ([]byte, error)
}

// Journal is what one process keeps: a file of appended records, whose lock says
// that the process lives, and beside it one of held records.
type Journal[R Record] struct {
	file  *os.File
	dirty bool
	held  *slots
	// Old are the files of processes that ended before, locked by this one.
	old []*os.File
}

// headerSize is the length of a record and its checksum, four bytes each.
const headerSize = 8

// largest bounds a record, so that a torn length is not taken for one.
const largest = 16 << 20

var table = crc32.MakeTable(crc32.Castagnoli)

// Open makes a journal in a directory, and returns what processes that have ended
// left there: of each what it held, then what it appended, in order. Their files
// stay until Forget. The error names a directory that cannot be used.
func Open[R Record](dir string) (*Journal[R], []R, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal[R]{}
	found, err := j.recover(dir)
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	if j.file, err = create(dir); err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	if j.held, err = newSlots(slotsOf(j.file)); err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return j, found, nil
}

// create makes this process's file. Another process that starts may find it before it
// is locked, and take it for one that was left: then another is made.
func create(dir string) (*os.File, error) {
	for {
		name := fmt.Sprintf("%d-%d.journal", time.Now().UnixNano(), os.Getpid())
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600) //nolint:gosec // the operator's own directory
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		switch err := lock(f); {
		case err == nil:
			return f, nil
		case !errors.Is(err, errTaken):
			return nil, errors.Join(fmt.Errorf("journal: lock: %w", err), f.Close())
		}
		f.Close() // it is empty
	}
}

// errTaken says that another process has, or had, a file: it is locked, or gone.
var errTaken = errors.New("taken by another process")

// lock makes a file this process's. Between its opening and its lock another process
// may have removed it: then its name is nobody's, or another file's.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errTaken
	}
	if err != nil {
		return err
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Stat(f.Name()); err != nil || !os.SameFile(opened, named) {
		return errTaken
	}
	return nil
}

// unlock closes a locked file. A process that is being forked has a copy of it for a
// moment, and to close this one alone would leave it locked.
func unlock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// recover takes over the files that no living process has locked.
func (j *Journal[R]) recover(dir string) ([]R, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var found []R
	for _, name := range names { // in the order of their time
		f, err := os.OpenFile(name, os.O_RDWR, 0) //nolint:gosec // the operator's own directory
		if errors.Is(err, os.ErrNotExist) {
			continue // another process has just taken it over
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		switch err := lock(f); {
		case errors.Is(err, errTaken):
			f.Close() // its process lives, or has just taken it along
			continue
		case err != nil:
			return nil, errors.Join(fmt.Errorf("journal: lock: %w", err), f.Close())
		}
		records, err := leftBy[R](f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("journal: %s: %w", name, err), unlock(f))
		}
		if len(records) == 0 {
			if err := remove(f); err != nil {
				return nil, fmt.Errorf("journal: %w", err)
			}
			continue
		}
		j.old, found = append(j.old, f), append(found, records...)
	}
	return found, nil
}

// leftBy returns what a process held and appended.
func leftBy[R any](f *os.File) ([]R, error) {
	held, err := readSlots[R](slotsOf(f))
	if err != nil {
		return nil, err
	}
	appended, err := read[R](f)
	return append(held, appended...), err
}

// slotsOf names the file of held records that belongs to a journal's.
func slotsOf(f *os.File) string { return strings.TrimSuffix(f.Name(), ".journal") + ".held" }

// remove ends a process's files, the one whose lock protects both last.
func remove(f *os.File) error {
	err := os.Remove(slotsOf(f))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(f.Name()), f.Close())
}

// read returns the whole records of a file. What follows the first one that is
// not whole was never acknowledged.
func read[R any](f io.Reader) ([]R, error) {
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	var records []R
	for {
		r, rest, whole := next[R](text)
		if !whole {
			return records, nil
		}
		records, text = append(records, r), rest
	}
}

// next is the record at the beginning of text, if it is whole.
func next[R any](text []byte) (r R, rest []byte, whole bool) {
	if len(text) < headerSize {
		return r, nil, false
	}
	size, sum := binary.LittleEndian.Uint32(text), binary.LittleEndian.Uint32(text[4:])
	if size == 0 || size > largest || int(size) > len(text)-headerSize {
		return r, nil, false
	}
	payload := text[headerSize : headerSize+int(size)]
	whole = crc32.Checksum(payload, table) == sum && json.Unmarshal(payload, &r) == nil
	return r, text[headerSize+int(size):], whole
}

// encode appends a record as next reads it. Its header is zeros until the rest is
// there, so that whoever is killed in between leaves no record.
func encode[R Record](out []byte, r R) ([]byte, error) {
	begin := len(out)
	out, err := r.AppendJSON(append(out, make([]byte, headerSize)...))
	if err != nil {
		return nil, err
	}
	header, payload := out[begin:], out[begin+headerSize:]
	binary.LittleEndian.PutUint32(header[4:], crc32.Checksum(payload, table))
	binary.LittleEndian.PutUint32(header, uint32(len(payload)))
	return out, nil
}

// Append puts records on the disk, all of them or an error: then none of them
// may be acknowledged.
func (j *Journal[R]) Append(records ...R) error {
	var out []byte
	for _, r := range records {
		var err error
		if out, err = encode(out, r); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	size, err := j.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.dirty = true
	if _, err = j.file.Write(out); err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// What was written in part would hide what follows it.
		return errors.Join(fmt.Errorf("journal: %w", err), j.file.Truncate(size))
	}
	return nil
}

// Forget drops everything, once it is where it belongs: own records and those of
// processes that ended before.
func (j *Journal[R]) Forget() error {
	var errs []error
	if j.dirty {
		errs = append(errs, j.file.Truncate(0), j.file.Sync())
		j.dirty = false
	}
	for _, f := range j.old {
		errs = append(errs, remove(f))
	}
	j.old = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Close ends the journal. Its files go if nothing is in them. Hold says no from then
// on; what is held can still be released.
func (j *Journal[R]) Close() error {
	var errs []error
	for _, f := range j.old {
		errs = append(errs, unlock(f))
	}
	empty := !j.dirty
	if j.held != nil {
		empty = j.held.close() && empty
	}
	switch {
	case j.file == nil:
	case empty:
		errs = append(errs, remove(j.file))
	default:
		errs = append(errs, unlock(j.file))
	}
	return errors.Join(errs...)
}
