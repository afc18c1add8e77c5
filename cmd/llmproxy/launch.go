package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// inProcess runs an instance as goroutines of this process. ended gets its
// error when it ends before it is stopped.
func (s *starter) inProcess(i instance, logPath string, entry *ReadyService) (ended <-chan error, err error) {
	log, err := os.OpenFile(logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // logs hold no secret
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", i.name, err)
	}
	run, err := i.load(i.getenv(s.env))
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	entry.PID = os.Getpid()
	ctx, cancel := context.WithCancel(context.Background()) // its end is decided by stop, in order
	done := make(chan error, 1)
	early := make(chan error, 1)
	go func() {
		err := run(ctx, log)
		if ctx.Err() == nil {
			early <- err
			s.failed <- fmt.Errorf("%s ended: %w", i.name, err)
		}
		done <- err
	}()
	s.stops = append(s.stops, func() error {
		cancel()
		return errors.Join(<-done, log.Close())
	})
	return early, nil
}

// child runs an instance as a process of its own, as in production, and starts
// it again when it ends by itself. The child holds a pipe to us: when we are
// gone, however that came, it drains and ends too.
func (s *starter) child(i instance, logPath string, entry *ReadyService) (ended <-chan error, err error) {
	c := &supervised{s: s, i: i, logPath: logPath, early: make(chan error, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if err := c.launch(); err != nil {
		return nil, err
	}
	entry.PID = c.cmd.Process.Pid
	go c.supervise()
	s.stops = append(s.stops, c.stop)
	return c.early, nil
}

// supervised is a child process that is kept running.
type supervised struct {
	s       *starter
	i       instance
	logPath string
	early   chan error
	quit    chan struct{}
	done    chan struct{}

	mu    sync.Mutex
	cmd   *exec.Cmd
	leash io.Closer
}

func (c *supervised) launch() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(c.logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", c.i.name, err)
	}
	defer log.Close()
	cmd := exec.Command(self, "serve", c.i.name) // this program itself; it is stopped in order
	cmd.Env = os.Environ()
	for name, value := range c.i.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stderr = log
	// A Ctrl-C in the terminal is for us alone: we stop the children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("make the leash of %s: %w", c.i.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.i.name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmd, c.leash = cmd, leash
	return nil
}

// supervise waits for the child and starts it again until stop.
func (c *supervised) supervise() {
	defer close(c.done)
	for {
		started := time.Now()
		err := c.cmd.Wait()
		select {
		case <-c.quit:
			return
		default:
		}
		pid := c.cmd.Process.Pid
		if time.Since(started) < time.Second {
			// It cannot even start: whoever waits for it is told, and it is
			// tried again only later.
			select {
			case c.early <- fmt.Errorf("%w; the end of its log: %s", orExited(err), lastLine(c.logPath)):
			default:
			}
			if !c.wait(time.Second) {
				return
			}
		}
		fmt.Fprintf(c.s.out, "%s (pid %d) ended: %v; starting it again\n", c.i.name, pid, orExited(err))
		for c.launch() != nil {
			if !c.wait(time.Second) {
				return
			}
		}
		c.s.replacePID(pid, c.cmd.Process.Pid)
	}
}

func orExited(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// wait pauses; false when the child is to stop meanwhile.
func (c *supervised) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.quit:
		return false
	}
}

// stop asks the child to drain and waits for it.
func (c *supervised) stop() error {
	close(c.quit)
	c.mu.Lock()
	err := c.leash.Close()
	c.mu.Unlock()
	<-c.done
	return err
}

func lastLine(path string) string {
	text, err := os.ReadFile(path) //nolint:gosec // our own log
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// serveChild is what a child process runs: one service, until its parent lets
// go of the leash on standard input.
func serveChild(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return usageError("serve needs the name of one service")
	}
	svc, ok := serviceNamed(args[0])
	if !ok {
		return usageError("there is no service %q", args[0])
	}
	run, err := svc.load(os.Getenv)
	if err != nil {
		return usageError("configuration:\n%v", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // any end of it is the parent's
		cancel()
	}()
	return run(ctx, os.Stderr)
}
