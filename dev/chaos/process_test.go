package chaos

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/port"
)

const root = "github.com/proliferate-ai/llm-proxy/"

// build compiles the services with the race detector, as the processes of the
// test are.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	args := []string{"build", "-race", "-pgo=off", "-o", dir + "/"}
	for _, name := range []string{"keysvc", "proxysvc", "billingsvc", "outboxsvc"} {
		args = append(args, root+"services/"+name+"/cmd/"+name)
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build the services: %v\n%s", err, out)
	}
	return dir
}

// service is one process and its successors: whoever ends it, keep starts it
// again, as an orchestrator would.
type service struct {
	name       string
	binary     string
	env        []string
	grpc, http string
	log        buffer

	mu       sync.Mutex
	cmd      *exec.Cmd
	gone     chan struct{} // closed when cmd has ended
	wanted   bool
	expected bool // its end was asked for
	ready    bool // it was ready once
	deaths   int
	faults   []string // ends that nobody asked for
}

func newService(t *testing.T, binaries, name string) *service {
	t.Helper()
	kind, _, _ := strings.Cut(name, "-")
	s := &service{name: name, binary: filepath.Join(binaries, kind), grpc: freePort(t), http: freePort(t)}
	prefix := strings.ToUpper(kind)
	s.env = []string{
		"PATH=" + os.Getenv("PATH"), prefix + "_GRPC_LISTEN=" + s.grpc, prefix + "_HTTP_LISTEN=" + s.http,
		"LLM_PROXY_MASTER_KEY=" + masterKey, "LLM_PROXY_SERVICE_TOKEN=" + serviceToken,
	}
	return s
}

func freePort(t testing.TB) string {
	t.Helper()
	addr, err := port.Free("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// keep runs the service until ctx ends.
func (s *service) keep(ctx context.Context) {
	s.want(true)
	for {
		s.revive(ctx)
		if !pause(ctx, 25*time.Millisecond) {
			s.kill()
			return
		}
	}
}

// revive starts the process if it has ended and is wanted.
func (s *service) revive(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		select {
		case <-s.gone:
			if !s.expected && s.ready {
				s.faults = append(s.faults, fmt.Sprintf("%s ended by itself: %s", s.name, s.cmd.ProcessState))
			}
			s.cmd = nil
		default:
			s.ready = s.ready || isReady(ctx, s.http)
			return
		}
	}
	if !s.wanted {
		return
	}
	cmd := exec.Command(s.binary) // our own binary; keep ends it
	cmd.Env, cmd.Stderr = s.env, &s.log
	if err := cmd.Start(); err != nil {
		s.faults = append(s.faults, fmt.Sprintf("start %s: %v", s.name, err))
		return
	}
	gone := make(chan struct{})
	go func() { // keep waits for it
		cmd.Wait() //nolint:errcheck // ProcessState has it
		close(gone)
	}()
	s.cmd, s.gone, s.expected, s.ready = cmd, gone, false, false
}

func isReady(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (s *service) want(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = yes
}

// signal sends a signal to the process, if it lives.
func (s *service) signal(sig syscall.Signal, isEnd bool) (gone <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isEnd {
		s.wanted, s.expected = false, true
		s.deaths++
	}
	if s.cmd == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	s.cmd.Process.Signal(sig) //nolint:errcheck // it may have ended
	return s.gone
}

// kill ends the process without a word; it stays away until it is wanted.
func (s *service) kill() { <-s.signal(syscall.SIGKILL, true) }

// drain ends the process as an orchestrator does: it is killed when ctx ends
// before it has drained.
func (s *service) drain(ctx context.Context) {
	select {
	case <-s.signal(syscall.SIGTERM, true):
	case <-ctx.Done():
		s.kill()
	}
}

// died is how often it was ended.
func (s *service) died() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaths
}

// report is what the process did wrong by itself.
func (s *service) report() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	faults := s.faults
	text := s.log.String()
	if at := strings.Index(text, "DATA RACE"); at >= 0 {
		faults = append(faults, s.name+" has a data race: "+text[at:min(len(text), at+3000)])
	}
	if at := strings.Index(text, "panic: "); at >= 0 {
		faults = append(faults, s.name+" panicked: "+text[at:min(len(text), at+3000)])
	}
	return faults
}

// buffer collects a process's output.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
