package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A test starts this binary again as a process to kill: the variable says what it
// does, with a journal in the directory where it is started.
const childDoes = "JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	does := os.Getenv(childDoes)
	if does == "" {
		os.Exit(m.Run())
	}
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	switch does {
	case "hold":
		holdAndTell(dir)
	case "die":
		dieInHold(dir)
	case "open":
		openOnFullDisk(dir)
	}
}

// child starts one.
func child(t *testing.T, does, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Dir, cmd.Env = dir, append(os.Environ(), childDoes+"="+does)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() }) //nolint:errcheck // for tests that fail early
	return cmd, bufio.NewScanner(out)
}

// killed says whether a process ended by SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// holdAndTell holds and releases records until it is killed. It tells each before
// ("take", "drop") and after ("held", "free") in one write, which a pipe does not tear.
func holdAndTell(dir string) {
	j, _, err := Open[text](dir)
	if err != nil {
		panic(err)
	}
	var all sync.WaitGroup
	for g := range 3 {
		all.Go(func() {
			var mine []int // up to three at once, by slot
			for n := 0; ; n++ {
				name := fmt.Sprintf("%d-%d", g, n)
				fmt.Printf("take %s\n", name)
				slot, ok := j.Hold(text(name + strings.Repeat("x", n%1000)))
				if !ok {
					panic("not held")
				}
				fmt.Printf("held %s\n", name)
				if mine = append(mine, slot); len(mine) == 3 {
					oldest := fmt.Sprintf("%d-%d", g, n-2)
					fmt.Printf("drop %s\n", oldest)
					j.Release(mine[0])
					fmt.Printf("free %s\n", oldest)
					mine = mine[1:]
				}
			}
		})
	}
	all.Wait()
}

// TestWhatAProcessHeldWhenItWasKilled kills real processes at any moment. The next
// one finds what was held and not dropped, and nothing that was released.
func TestWhatAProcessHeldWhenItWasKilled(t *testing.T) {
	t.Parallel()
	for round := range 5 {
		dir := t.TempDir()
		cmd, lines := child(t, "hold", dir)
		last, n := map[string]string{}, 0
		for lines.Scan() {
			what, name, _ := strings.Cut(lines.Text(), " ")
			last[name] = what
			if n++; n == 500+137*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); !killed(err) {
			t.Fatalf("the process ended by itself: %v", err)
		}
		_, found := open(t, dir)
		times, held := map[string]int{}, 0
		for _, r := range found {
			times[strings.TrimRight(string(r), "x")]++
		}
		for name, what := range last {
			if what == "held" {
				held++
			}
			if what == "held" && times[name] != 1 || what == "free" && times[name] != 0 || times[name] > 1 {
				t.Errorf("round %d: %s was last %q, found %d times", round, name, what, times[name])
			}
		}
		if held == 0 || len(found) > 3*3 {
			t.Errorf("round %d: %d were held, found %q", round, held, found)
		}
	}
}

// half is a record whose process is killed while it is encoded.
type half string

func (h half) AppendJSON(buf []byte) ([]byte, error) {
	buf = append(append(buf, '"'), h...)
	if h == "fatal" {
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL) //nolint:errcheck // it does not return
	}
	return append(buf, '"'), nil
}

// dieInHold is killed in the middle of writing a record over a longer one.
func dieInHold(dir string) {
	j, _, err := Open[half](dir)
	if err != nil {
		panic(err)
	}
	slot, _ := j.Hold("gone, and longer")
	j.Hold("kept")
	j.Release(slot)
	j.Hold("fatal")
}

func TestWhoIsKilledWhileHoldingLeavesNoRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, _ := child(t, "die", dir)
	if err := cmd.Wait(); !killed(err) {
		t.Fatalf("the process ended by itself: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.held"))
	if err != nil || len(names) != 1 {
		t.Fatalf("files %v, %v", names, err)
	}
	file, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(file[:headerSize+6]), strings.Repeat("\x00", headerSize)+`"fatal`; got != want {
		t.Errorf("the page begins with %q, want %q", got, want)
	}
	if _, found := open(t, dir); len(found) != 1 || found[0] != "kept" {
		t.Errorf("found %q", found)
	}
}

// openOnFullDisk opens a journal where a file takes 1 MiB.
func openOnFullDisk(dir string) {
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	_, _, err := Open[text](dir)
	fmt.Println(err)
}

// TestAFullDiskShowsWhenTheJournalIsOpened has one that takes less than the slots:
// Open says so, names the place and leaves nothing there.
func TestAFullDiskShowsWhenTheJournalIsOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, lines := child(t, "open", dir)
	if !lines.Scan() || !strings.Contains(lines.Text(), dir) || !strings.HasSuffix(lines.Text(), "file too large") {
		t.Errorf("told %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process did not survive it: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
