package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pgtest"
	"github.com/proliferate-ai/llm-proxy/kit/port"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

// Secrets that are planted; none may show up in any log.
const (
	masterKey    = "sk-master-canary-0123456789"
	serviceToken = "service-canary-0123456789"
	realKey      = "sk-ant-real-canary-0123456789"
	autumnKey    = "am_sk_test_canary_0123456789"
)

// binaries builds every program of the project once, with the race detector.
var binaries = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp("", "llmproxy-e2e-")
	if err != nil {
		return nil, err
	}
	built := map[string]string{}
	for name, pkg := range map[string]string{
		"keysvc": "services/keysvc/cmd/keysvc", "proxysvc": "services/proxysvc/cmd/proxysvc",
		"billingsvc": "services/billingsvc/cmd/billingsvc", "outboxsvc": "services/outboxsvc/cmd/outboxsvc",
		"llmproxy": "cmd/llmproxy",
	} {
		built[name] = filepath.Join(dir, name)
		cmd := exec.CommandContext(context.Background(), "go", "build", "-race", "-pgo=off", "-o", built[name], root+pkg)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return built, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built, err := binaries(); err == nil {
		os.RemoveAll(filepath.Dir(built["keysvc"]))
	}
	os.Exit(code)
}

func binary(t testing.TB, name string) string {
	t.Helper()
	built, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return built[name]
}

// process is one running service.
type process struct {
	name          string
	grpc, http    string
	identity      *serve.Identity
	cmd           *exec.Cmd
	log           *lockedBuffer
	exited        chan struct{}
	exitErr       error
	expectedToDie bool
}

// lockedBuffer collects a process's output.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// suite is the four services as processes, each with a database role of its
// own, in front of the simulators.
type suite struct {
	t         testing.TB
	anthropic *anthropic.Server
	autumn    *autumn.Server
	env       map[string]string
	identity  *serve.Identity // of administrators; nil: calls go in the clear
	database  string
	roles     map[string]string // DATABASE_URL by service
	processes []*process
	// wrap makes the command that runs a service; nil: its binary with the race
	// detector.
	wrap    func(name string) *exec.Cmd
	stopped []func() // run when all processes have ended
}

func newSuite(t testing.TB) *suite {
	t.Helper()
	s := &suite{
		t: t, anthropic: anthropic.New(anthropic.Options{APIKey: realKey}),
		autumn: autumn.New(autumn.Options{SecretKey: autumnKey, DefaultGrant: 10_000}),
		roles:  map[string]string{},
	}
	upstream, sink := httptest.NewServer(s.anthropic), httptest.NewServer(s.autumn)
	t.Cleanup(upstream.Close)
	t.Cleanup(sink.Close)
	s.database = pgtest.Empty(t)
	for _, name := range []string{"keysvc", "proxysvc", "billingsvc"} {
		s.roles[name] = pgtest.Role(t, s.database, name)
	}
	s.env = map[string]string{
		"LLM_PROXY_MASTER_KEY": masterKey, "LLM_PROXY_SERVICE_TOKEN": serviceToken,
		"ANTHROPIC_API_KEY": realKey, "ANTHROPIC_API_BASE": upstream.URL,
		"AUTUMN_API_KEY": autumnKey, "AUTUMN_API_URL": sink.URL,
		"BILLING_SYNC_INTERVAL": "100ms", "OUTBOX_INTERVAL": "100ms",
		"PROXYSVC_LOG_HEARTBEAT": "100ms", "PROXYSVC_LOG_SILENCE": "500ms",
		"LOG_LEVEL": "debug",
	}
	t.Cleanup(s.stop)
	return s
}

// start runs a service and waits until it is ready.
func (s *suite) start(name string) *process {
	s.t.Helper()
	p := &process{name: name, grpc: freePort(s.t), http: freePort(s.t), identity: s.identity, log: &lockedBuffer{}, exited: make(chan struct{})}
	prefix := strings.ToUpper(name)
	if s.wrap != nil {
		p.cmd = s.wrap(name)
	} else {
		p.cmd = exec.Command(binary(s.t, name)) // our own binary; stop ends it
	}
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), prefix + "_GRPC_LISTEN=" + p.grpc, prefix + "_HTTP_LISTEN=" + p.http}
	if url := s.roles[name]; url != "" {
		p.cmd.Env = append(p.cmd.Env, "DATABASE_URL="+url)
	}
	for _, other := range s.processes {
		p.cmd.Env = append(p.cmd.Env, strings.ToUpper(other.name)+"_TARGET="+other.grpc)
	}
	for k, v := range s.env {
		p.cmd.Env = append(p.cmd.Env, k+"="+v)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		p.exitErr = p.cmd.Wait()
		close(p.exited)
	}()
	s.processes = append(s.processes, p)
	s.awaitReady(p)
	return p
}

func (s *suite) awaitReady(p *process) {
	s.t.Helper()
	poll(s.t, func() bool {
		select {
		case <-p.exited:
			s.t.Fatalf("%s ended: %v\n%s", p.name, p.exitErr, p.log)
		default:
		}
		resp, err := http.Get("http://" + p.http + "/readyz") //nolint:noctx // bounded by the test
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill ends a process without a word.
func (p *process) kill() {
	p.expectedToDie = true
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.exited
}

// stop ends all processes as an orchestrator does, last started first, checks
// that each drained cleanly, and that no log holds a secret.
func (s *suite) stop() {
	for n := len(s.processes) - 1; n >= 0; n-- {
		p := s.processes[n]
		if p.expectedToDie {
			continue
		}
		p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended, which is said below
		<-p.exited
		if p.exitErr != nil {
			s.t.Errorf("%s did not drain: %v", p.name, p.exitErr)
		}
	}
	for _, f := range s.stopped {
		f()
	}
	for _, p := range s.processes {
		text := p.log.String()
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", p.name, tail(text, 4000))
		}
		if strings.Contains(text, "DATA RACE") {
			s.t.Errorf("%s has a data race", p.name)
		}
		for _, planted := range []string{masterKey, serviceToken, realKey, autumnKey, "sk-ant-"} {
			if strings.Contains(text, planted) {
				s.t.Errorf("%s has a secret in its log", p.name)
			}
		}
	}
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

// dial connects as an administrator.
func (p *process) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := serve.Caller{Token: secret.New(masterKey), Identity: p.identity}.Dial(p.grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func freePort(t testing.TB) string {
	t.Helper()
	addr, err := port.Free("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// poll asks until the answer is yes. Only the test's own deadline ends it, so
// that no machine is too slow.
func poll(t testing.TB, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(errors.New("the test ended before the answer was yes"))
		}
	}
}

// llmproxy runs a command of llmproxy against the suite and returns what it prints and
// its exit status.
func (s *suite) llmproxy(token string, args ...string) (string, int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), binary(s.t, "llmproxy"), args...)
	cmd.Env = []string{"LLM_PROXY_MASTER_KEY=" + token}
	for _, p := range s.processes {
		cmd.Env = append(cmd.Env, strings.ToUpper(p.name)+"_TARGET="+p.grpc)
		if p.name == "proxysvc" {
			cmd.Env = append(cmd.Env, "LLM_PROXY_URL=http://"+p.http)
		}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
