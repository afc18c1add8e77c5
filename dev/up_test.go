package dev

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
)

// ready is the ready file as users read it.
type ready struct {
	ProxyURL     string `json:"proxy_url"`
	MasterKey    string `json:"master_key"`
	DatabaseURL  string `json:"database_url"`
	AnthropicURL string `json:"anthropic_url"`
	AutumnURL    string `json:"autumn_url"`
	Services     []struct {
		Name     string `json:"name"`
		GRPCAddr string `json:"grpc_addr"`
		HTTPAddr string `json:"http_addr"`
		PID      int    `json:"pid"`
	} `json:"services"`
}

// upSuite is a running `llmproxy up`.
type upSuite struct {
	t         *testing.T
	cmd       *exec.Cmd
	out       *lockedBuffer
	readyFile string
	ready     ready
}

// startUp runs `llmproxy up` and waits for its ready file.
func startUp(t *testing.T, env []string, flags ...string) *upSuite {
	t.Helper()
	u := &upSuite{t: t, out: &lockedBuffer{}, readyFile: filepath.Join(t.TempDir(), "ready.json")}
	args := append([]string{"up", "--http", "127.0.0.1:0", "--ready-file", u.readyFile}, flags...)
	u.cmd = exec.Command(binary(t, "llmproxy"), args...) // our own binary; interrupt ends it
	u.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	u.cmd.Dir = t.TempDir()
	u.cmd.Stdout, u.cmd.Stderr = u.out, u.out
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- u.cmd.Wait() }()
	t.Cleanup(func() {
		u.cmd.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended, which is said below
		if err := <-ended; err != nil {
			t.Errorf("llmproxy up ended with %v:\n%s", err, u.out)
		}
		if strings.Contains(u.out.String(), "DATA RACE") {
			t.Errorf("llmproxy up has a data race:\n%s", u.out)
		}
		u.gone()
	})
	poll(t, func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("llmproxy up ended: %v\n%s", err, u.out)
		default:
		}
		text, err := os.ReadFile(u.readyFile)
		return err == nil && json.Unmarshal(text, &u.ready) == nil
	})
	return u
}

// gone checks that nothing is left behind.
func (u *upSuite) gone() {
	if _, err := os.Stat(u.readyFile); err == nil {
		u.t.Error("the ready file is still there")
	}
	for _, s := range u.ready.Services {
		if s.PID != u.cmd.Process.Pid && syscall.Kill(s.PID, 0) == nil {
			u.t.Errorf("%s (pid %d) still runs", s.Name, s.PID)
		}
	}
	if conn, err := pgx.Connect(u.t.Context(), u.ready.DatabaseURL); err == nil && !u.keepsDatabase() {
		conn.Close(u.t.Context())
		u.t.Error("Postgres still runs")
	}
}

func (u *upSuite) keepsDatabase() bool {
	return strings.Contains(strings.Join(u.cmd.Env, "\n"), "DATABASE_URL=")
}

// demo runs `llmproxy demo` against the suite.
func (u *upSuite) demo() string {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), binary(u.t, "llmproxy"), "demo", "--ready-file", u.readyFile)
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Fatalf("llmproxy demo: %v\n%s\n%s", err, out, u.out)
	}
	return string(out)
}

func TestUpRunsTheSuiteAndDemoShowsIt(t *testing.T) {
	t.Parallel()
	u := startUp(t, nil, "--ephemeral")
	if n := strings.Count(strings.TrimSpace(u.out.String()), "\n") + 1; n > 20 {
		t.Errorf("the banner has %d lines, 20 are allowed:\n%s", n, u.out)
	}
	for _, want := range []string{u.ready.ProxyURL, u.ready.MasterKey, "SIMULATED", "curl -N"} {
		if !strings.Contains(u.out.String(), want) {
			t.Errorf("the banner does not have %s:\n%s", want, u.out)
		}
	}
	out := u.demo()
	for _, want := range []string{"key       sk-...", "every token", "× 3 =", "posted (proof: deductions)", "no credits before, 9999.", "the sums agree to the nano-dollar"} {
		if !strings.Contains(strings.ToLower(out), strings.ToLower(want)) {
			t.Errorf("the demo does not show %q:\n%s", want, out)
		}
	}
	if len(u.ready.Services) != 4 {
		t.Errorf("services %+v, want four", u.ready.Services)
	}
}

// TestUpSplitsAndReplicates runs every service as a process, three of them
// proxies, on a database that is given; kills one, and sees it come back.
func TestUpSplitsAndReplicates(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t)
	u := startUp(t, []string{"DATABASE_URL=" + database}, "--split", "--replicas", "proxysvc=3", "--data", t.TempDir())
	if u.ready.DatabaseURL != database {
		t.Errorf("database_url %q is not the one that was given", u.ready.DatabaseURL)
	}
	pids, proxies := map[int]bool{}, []int{}
	for _, s := range u.ready.Services {
		pids[s.PID] = true
		if s.Name == "proxysvc" {
			proxies = append(proxies, s.PID)
		}
		resp, err := http.Get("http://" + s.HTTPAddr + "/readyz") //nolint:noctx // bounded by the test
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s at %s: %v", s.Name, s.HTTPAddr, err)
			continue
		}
		resp.Body.Close()
	}
	if len(pids) != 6 || len(proxies) != 3 {
		t.Fatalf("services %+v, want six processes, three of them proxies", u.ready.Services)
	}
	u.demo()
	if err := syscall.Kill(proxies[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll(t, func() bool {
		text, err := os.ReadFile(u.readyFile)
		return err == nil && !strings.Contains(string(text), strconv.Itoa(proxies[0])+"\n") && json.Unmarshal(text, &u.ready) == nil
	})
	poll(t, func() bool {
		resp, err := http.Get(u.ready.ProxyURL + "/readyz") //nolint:noctx // bounded by the test
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	u.demo()
}

// TestUpKeepsItsData restarts the suite on its directory: the books go on, and
// so does the simulated Autumn, so the audit still agrees.
func TestUpKeepsItsData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Run("first", func(t *testing.T) {
		startUp(t, nil, "--data", dir).demo()
	})
	t.Run("second", func(t *testing.T) {
		if out := startUp(t, nil, "--data", dir).demo(); !strings.Contains(out, "number 2 of the team") {
			t.Errorf("the second run does not go on:\n%s", out)
		}
	})
}

func TestUpRefusesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env  []string
		args []string
		want []string
	}{
		"two variables that are wrong": {[]string{"BILLING_SYNC_INTERVAL=soon", "LLM_MARKUP=-1"}, nil, []string{"BILLING_SYNC_INTERVAL", "LLM_MARKUP"}},
		"a flag that is none":          {nil, []string{"--replicate"}, []string{"-replicate"}},
		"replicas in one process":      {nil, []string{"--replicas", "proxysvc=2"}, []string{"--split"}},
		"replicas of nothing":          {nil, []string{"--split", "--replicas", "proxy=2"}, []string{"NAME=N"}},
		"an argument":                  {nil, []string{"now"}, []string{"no arguments"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), binary(t, "llmproxy"), append([]string{"up", "--ephemeral", "--http", "127.0.0.1:0"}, tt.args...)...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, tt.env...)
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 2 {
				t.Errorf("exit %d, want 2: %s", cmd.ProcessState.ExitCode(), out)
			}
			for _, w := range tt.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("it does not name %s: %s", w, out)
				}
			}
		})
	}
}

func TestDemoWithoutASuiteSaysWhatToDo(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), binary(t, "llmproxy"), "demo")
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "make run") {
		t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), out)
	}
}

// TestTheSuiteIsFoundByTheEnvironment runs the demo and the audit without a ready
// file.
func TestTheSuiteIsFoundByTheEnvironment(t *testing.T) {
	t.Parallel()
	u := startUp(t, nil, "--ephemeral")
	env := []string{"PATH=" + os.Getenv("PATH"), "LLM_PROXY_URL=" + u.ready.ProxyURL, "LLM_PROXY_MASTER_KEY=" + u.ready.MasterKey}
	for _, s := range u.ready.Services {
		env = append(env, strings.ToUpper(s.Name)+"_TARGET="+s.GRPCAddr)
	}
	for _, command := range []string{"demo", "audit"} {
		cmd := exec.CommandContext(t.Context(), binary(t, "llmproxy"), command)
		cmd.Dir, cmd.Env = t.TempDir(), env
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "agree to the nano-dollar") {
			t.Errorf("llmproxy %s: %v\n%s", command, err, out)
		}
	}
}
