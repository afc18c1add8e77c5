package dev

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	keysv1 "github.com/proliferate-ai/llm-proxy/gen/keysvc/v1"
)

// withCores runs a program where it may leave a core file of any size.
const withCores = `ulimit -c unlimited 2>/dev/null; cd "$1" && exec "$2"`

// TestACrashLeavesNoSecret crashes keysvc and the proxy, with every secret in
// their memory, where core files are allowed: there is none, and what they print
// has no secret. Without the race detector, which forbids core files by itself.
func TestACrashLeavesNoSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSuite(t)
	s.env["GOTRACEBACK"] = "crash"
	s.wrap = func(name string) *exec.Cmd {
		plain := filepath.Join(dir, name)
		build := exec.CommandContext(t.Context(), "go", "build", "-pgo=off", "-o", plain, root+"services/"+name+"/cmd/"+name)
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		if err := os.Mkdir(plain+".d", 0o700); err != nil {
			t.Fatal(err)
		}
		return exec.Command("sh", "-c", withCores, "sh", plain+".d", plain) // stop ends it
	}
	keysvc, proxysvc := s.start("keysvc"), s.start("proxysvc")
	issued, err := keysv1.NewKeyServiceClient(keysvc.dial(t)).IssueSessionKey(t.Context(), &keysv1.IssueSessionKeyRequest{UserId: "s-1", TeamId: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ask(t.Context(), "http://"+proxysvc.http, issued.GetSecret(), "[[sim:stall_pings=after:1]]") // it still runs when it crashes
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, p := range []*process{proxysvc, keysvc} {
		p.expectedToDie = true
		if err := p.cmd.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		<-p.exited
		exit, ok := errors.AsType[*exec.ExitError](p.exitErr)
		if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGABRT { //nolint:forcetypeassert // on Unix it is one
			t.Errorf("%s ended with %v, want a crash", p.name, p.exitErr)
		}
		if ok && exit.Sys().(syscall.WaitStatus).CoreDump() { //nolint:forcetypeassert // the same
			t.Errorf("%s dumped its core", p.name)
		}
		if left, err := os.ReadDir(filepath.Join(dir, p.name+".d")); err != nil || len(left) > 0 {
			t.Errorf("%s left %v, %v", p.name, left, err)
		}
		text := p.log.String()
		if !strings.Contains(text, "SIGABRT") || !strings.Contains(text, "goroutine ") {
			t.Errorf("%s did not print where it was:\n%s", p.name, tail(text, 2000))
		}
		for _, secret := range []string{masterKey, serviceToken, realKey, issued.GetSecret()} {
			for _, form := range disguises(secret) {
				if strings.Contains(text, form) {
					t.Errorf("%s prints a secret when it crashes", p.name)
				}
			}
		}
	}
}
