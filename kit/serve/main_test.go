package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// childEnv makes this test binary a service of its own, so that a test can see
// what Main prints and send it a signal.
const childEnv = "SERVE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	args := append([]string{"testsvc"}, os.Args[1:]...)
	os.Exit(Main(args, func(getenv func(string) string) (string, error) {
		if getenv(childEnv) == "bad" {
			return "", errors.New("TEST_PORT: not set")
		}
		return getenv(childEnv), nil
	}, func(ctx context.Context, cfg string) error {
		if cfg == "fails" {
			return errors.New("testsvc wants :1 for gRPC")
		}
		os.Stdout.WriteString("serving\n")
		<-ctx.Done()
		return nil
	}, nil))
}

func TestMainAsAProcess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, child string
		args        []string
		signal      os.Signal
		status      int
		stderr      string
	}{
		{"an interrupt ends it cleanly", "runs", nil, os.Interrupt, 0, ""},
		{"a termination ends it cleanly", "runs", nil, syscall.SIGTERM, 0, ""},
		{"a service that fails says why", "fails", nil, nil, 1, "testsvc wants :1 for gRPC\n"},
		{"a wrong configuration is told in full", "bad", nil, nil, 2, "configuration:\nTEST_PORT: not set\n"},
		{"a wrong command gets the usage", "runs", []string{"dance"}, nil, 2, "usage: testsvc [migrate]\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], tt.args...)
			cmd.Env = append(os.Environ(), childEnv+"="+tt.child)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.signal != nil {
				if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
					t.Errorf("it says %q, %v", line, err)
				}
				if err := cmd.Process.Signal(tt.signal); err != nil {
					t.Error(err)
				}
			}
			err = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != tt.status || stderr.String() != tt.stderr {
				t.Errorf("exit status %d (%v) and %q, want %d and %q", got, err, stderr.String(), tt.status, tt.stderr)
			}
		})
	}
}

func TestMainsExitStatus(t *testing.T) {
	t.Parallel()
	good := func(func(string) string) (int, error) { return 1, nil }
	bad := func(func(string) string) (int, error) { return 0, errors.New("A: not set") }
	fine := func(context.Context, int) error { return nil }
	fails := func(context.Context, int) error { return errors.New("port in use") }
	for name, tt := range map[string]struct {
		args         []string
		load         func(func(string) string) (int, error)
		run, migrate func(context.Context, int) error
		want         int
	}{
		"a clean run":               {[]string{"x"}, good, fine, fails, 0},
		"a run that fails":          {[]string{"x"}, good, fails, fine, 1},
		"a migration":               {[]string{"x", "migrate"}, good, fails, fine, 0},
		"a wrong configuration":     {[]string{"x"}, bad, fine, fine, 2},
		"an unknown command":        {[]string{"x", "dance"}, good, fine, fine, 2},
		"no database to migrate":    {[]string{"x", "migrate"}, good, fine, nil, 2},
		"more than one argument":    {[]string{"x", "migrate", "now"}, good, fine, fine, 2},
		"an end that was asked for": {[]string{"x"}, good, func(context.Context, int) error { return context.Canceled }, nil, 0},
	} {
		if got := Main(tt.args, tt.load, tt.run, tt.migrate); got != tt.want {
			t.Errorf("%s exits with %d, want %d", name, got, tt.want)
		}
	}
}
