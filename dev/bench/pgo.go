package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"
)

// profiled is one more file of proxysvc's program when a profile for the compiler is made;
// it has no such thing of its own. The profile goes to a file whose path is put in.
const profiled = `package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

func init() {
	const path = %q
	f, err := os.Create(path + ".part")
	if err != nil {
		panic(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		panic(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGUSR1)
	go func() {
		<-end
		pprof.StopCPUProfile()
		if f.Close() == nil {
			_ = os.Rename(path+".part", path)
		}
	}()
}
`

// overlay writes what go build takes to add that file.
func (s *stand) overlay(ctx context.Context, program string) (string, error) {
	dir, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", program).Output()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", program, err)
	}
	source, file := filepath.Join(s.dir, "pgo.go"), filepath.Join(s.dir, "overlay.json")
	if err := os.WriteFile(source, fmt.Appendf(nil, profiled, s.pgoFile()), 0o644); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(strings.TrimSpace(string(dir)), "pgo.go"): source}})
	if err != nil {
		return "", err
	}
	return file, os.WriteFile(file, text, 0o644)
}

// writePGO has proxysvc write the profile of all that it has done.
func (s *stand) writePGO(ctx context.Context) error {
	if s.set.PGO == "" {
		return nil
	}
	svc := s.services["proxysvc"]
	if err := syscall.Kill(svc.PID(), syscall.SIGUSR1); err != nil {
		return fmt.Errorf("ask proxysvc for its profile: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(s.pgoFile()); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-svc.Exited():
			return fmt.Errorf("proxysvc ended without a profile:\n%s", svc.Tail())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return anywhere(s.pgoFile(), s.set.PGO)
}

// anywhere writes a profile anew without where on this machine it was made.
func anywhere(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	p, err := profile.Parse(in)
	if err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	for _, m := range p.Mapping {
		m.File = "proxysvc"
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return p.Write(out)
}

func (s *stand) pgoFile() string { return filepath.Join(s.dir, "cpu.pgo") }
