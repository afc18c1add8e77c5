// Package proc starts the processes that are measured, pins them to cores, and
// reads from /proc what they used. Linux only.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a program that was started here.
type Process struct {
	Name   string
	cmd    *exec.Cmd
	log    *os.File
	exited chan struct{}
}

// Command says what to start.
type Command struct {
	Name  string
	Cores string // as taskset takes them; empty, or without taskset: any
	Args  []string
	Env   []string // besides PATH and HOME
	Log   string   // file that takes its output
}

// Start starts a program. It ends with this process, however that one ends.
func Start(c Command) (*Process, error) {
	args := c.Args
	if c.Cores != "" && CanPin() {
		args = append([]string{"taskset", "-c", c.Cores}, args...)
	}
	log, err := os.Create(c.Log)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: c.Name, cmd: exec.Command(args[0], args[1:]...), log: log, exited: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Name, err), log.Close())
	}
	go func() { // Stop waits for it
		defer close(p.exited)
		_ = p.cmd.Wait() // its log says why
	}()
	return p, nil
}

// PID of the process; taskset becomes the program that it starts.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Stop ends the process, by force after ten seconds.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill() // as above
		<-p.exited
	}
	p.log.Close()
}

// Tail is what the process said last.
func (p *Process) Tail() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// CanPin says whether processes can be pinned here.
func CanPin() bool {
	_, err := exec.LookPath("taskset")
	return err == nil
}

// Pin moves a running process, with all its threads, to some cores.
func Pin(pid int, cores string) error {
	if !CanPin() {
		return nil
	}
	if out, err := exec.Command("taskset", "-apc", cores, strconv.Itoa(pid)).CombinedOutput(); err != nil {
		return fmt.Errorf("pin %d to %s: %w: %s", pid, cores, err, out)
	}
	return nil
}

// Usage is what processes have used since they began, and the memory that they
// have now.
type Usage struct {
	CPU time.Duration
	// Private is memory that is theirs alone; Resident counts what they share once
	// for each of them.
	Private, Resident int64
}

// Sub is what was used since another reading.
func (u Usage) Sub(before Usage) Usage {
	u.CPU -= before.CPU
	return u
}

// tick is the unit of times in /proc/PID/stat on every Linux.
const tick = 10 * time.Millisecond

type stat struct {
	pid, parent int
	cpu         time.Duration // with that of children that have ended
}

// Tree is what some processes and all below them have used.
func Tree(roots ...int) (Usage, error) {
	all, err := stats()
	if err != nil {
		return Usage{}, err
	}
	in := map[int]bool{}
	for _, root := range roots {
		if _, ok := all[root]; !ok {
			return Usage{}, fmt.Errorf("process %d has ended", root)
		}
		in[root] = true
	}
	for grown := true; grown; {
		grown = false
		for pid, s := range all {
			if !in[pid] && in[s.parent] {
				in[pid], grown = true, true
			}
		}
	}
	var u Usage
	for pid := range in {
		u.CPU += all[pid].cpu
		private, resident := memory(pid)
		u.Private, u.Resident = u.Private+private, u.Resident+resident
	}
	return u, nil
}

// Parent is the process that started another one.
func Parent(pid int) (int, error) {
	s, err := readStat(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return s.parent, err
}

func stats() (map[int]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make(map[int]stat, len(files))
	for _, file := range files {
		if s, err := readStat(file); err == nil { // else it has just ended
			all[s.pid] = s
		}
	}
	return all, nil
}

// readStat reads one line of proc_pid_stat(5). The program's name is in
// parentheses and may hold anything.
func readStat(file string) (stat, error) {
	line, err := os.ReadFile(file)
	if err != nil {
		return stat{}, err
	}
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < 0 {
		return stat{}, fmt.Errorf("%s is not what was expected", file)
	}
	f := strings.Fields(string(line[end+1:])) // from the third field on
	if len(f) < 15 {
		return stat{}, fmt.Errorf("%s is not what was expected", file)
	}
	number := func(text string) int64 {
		n, _ := strconv.ParseInt(text, 10, 64) // the kernel writes numbers
		return n
	}
	s := stat{pid: int(number(strings.TrimSpace(string(line[:open])))), parent: int(number(f[1]))}
	for _, text := range f[11:15] { // utime, stime, cutime, cstime
		s.cpu += time.Duration(number(text)) * tick
	}
	return s, nil
}

// memory reads /proc/PID/status, in bytes.
func memory(pid int) (private, resident int64) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, 0 // it has just ended
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseInt(f[1], 10, 64) // 0 for lines that are of no interest
		switch f[0] {
		case "RssAnon:":
			private = kb << 10
		case "VmRSS:":
			resident = kb << 10
		}
	}
	return private, resident
}
