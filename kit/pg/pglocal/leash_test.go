package pglocal

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The test binary is a victim if these are set: it starts a server with them as
// options, prints its URL, and waits to be killed.
const (
	victimDir       = "PGLOCAL_TEST_VICTIM_DIR"
	victimEphemeral = "PGLOCAL_TEST_VICTIM_EPHEMERAL"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		s, err := Start(context.Background(), Options{Dir: dir, Ephemeral: os.Getenv(victimEphemeral) != ""})
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(s.URL() + "\n")
		<-s.Done()
	}
	os.Exit(m.Run())
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	t.Parallel()
	parent := sharedTemp(t)
	family, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer family.Close()
	// The victim and all its descendants inherit this end of the pipe.
	v, url := startVictim(t, w, victimDir+"="+parent, victimEphemeral+"=1")
	w.Close()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if made, err := os.ReadDir(parent); err != nil || len(made) != 1 {
		t.Fatalf("directories in use: %v, %v; want one", made, err)
	}

	kill(t, v)
	if err := family.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(family); err != nil { // ends with the last of them
		t.Fatalf("processes are left behind: %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("the server still accepts connections")
	}
}

func TestKilledProcessCanBeStartedAgainAtOnce(t *testing.T) {
	t.Parallel()
	dir := durableDir(t)
	v, url := startVictim(t, nil, victimDir+"="+dir)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `create table kept as select 42 as answer`); err != nil {
		t.Fatal(err)
	}
	kill(t, v) // its server is still there, stopping
	s := startT(t, Options{Dir: dir})
	execT(t, s, `insert into kept values (43)`)
}

// startVictim returns the victim when its server runs.
func startVictim(t *testing.T, inherited *os.File, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = t.Output()
	if inherited != nil {
		cmd.ExtraFiles = []*os.File{inherited}
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() }) //nolint:errcheck // for tests that fail early
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the victim did not start: %v", err)
	}
	return cmd, strings.TrimSpace(url)
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the victim ended by itself")
	}
}
