package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/proc"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/upstream"
	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
	"github.com/proliferate-ai/llm-proxy/kit/port"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// The proxy that is measured has a core of its own; the load, the upstream and
// keysvc share another. Postgres runs where it likes and is accounted apart.
const proxyCores, loadCores = "0", "1"

// Credentials of the stand, which lives for some minutes on loopback.
const (
	masterKey    = "sk-bench-master-0123456789"
	serviceToken = "bench-service-0123456789"
	realKey      = "sk-ant-bench-0123456789"
)

// stand is everything that runs.
type stand struct {
	set        settings
	dir        string // removed at the end
	pg         *pglocal.Server
	db         *pgxpool.Pool
	postmaster int
	self       string // this program
	processes  []*proc.Process
	upstream   string // its address
	services   map[string]service
	targets    map[string]*target // those that were started
	keys       keyring
	allocs     string // of a streamed delta; empty: not measured
	// loadAverage of the machine before anything was started here.
	loadAverage string
}

// service is one of ours.
type service struct {
	*proc.Process
	grpc, http string
	conn       *grpc.ClientConn // as an administrator
}

func newStand(ctx context.Context, set settings) (s *stand, err error) {
	s = &stand{set: set, services: map[string]service{}, targets: map[string]*target{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		s.loadAverage = string(load)
	}
	if s.self, err = os.Executable(); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "llmproxy-bench-"); err != nil {
		return s, err
	}
	say("building the services")
	for _, name := range []string{"keysvc", "proxysvc", "billingsvc"} {
		if err := s.build(ctx, name); err != nil {
			return s, err
		}
	}
	say("starting Postgres, durable")
	if err := s.startPostgres(ctx); err != nil {
		return s, err
	}
	if s.upstream, err = port.Free("127.0.0.1:0"); err != nil {
		return s, err
	}
	if _, err := s.start(proc.Command{Name: "upstream", Cores: loadCores, Args: []string{s.self, "upstream", s.upstream}, Env: []string{"GOMAXPROCS=1"}}); err != nil {
		return s, err
	}
	if err := s.startService(ctx, "keysvc", loadCores, nil); err != nil {
		return s, err
	}
	if err := s.startService(ctx, "proxysvc", proxyCores, append([]string{
		"ANTHROPIC_API_KEY=" + realKey, "ANTHROPIC_API_BASE=http://" + s.upstream, "PROXYSVC_JOURNAL_DIR=" + filepath.Join(s.dir, "journal"),
	}, set.Env...)); err != nil {
		return s, err
	}
	say("loading %d keys", set.Keys)
	return s, s.loadKeys(ctx, set.Keys)
}

func (s *stand) build(ctx context.Context, name string) error {
	program := "github.com/proliferate-ai/llm-proxy/services/" + name + "/cmd/" + name
	args := []string{"build", "-o", filepath.Join(s.dir, name)}
	if s.set.PGO != "" && name == "proxysvc" {
		file, err := s.overlay(ctx, program)
		if err != nil {
			return err
		}
		args = append(args, "-trimpath", "-overlay", file)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, program)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

func (s *stand) startPostgres(ctx context.Context) error {
	var err error
	o := pglocal.Options{Dir: filepath.Join(s.dir, "pg"), Log: os.Stderr}
	if s.pg, err = pglocal.Start(ctx, o); err != nil {
		return err
	}
	if err := s.configure(ctx, o); err != nil {
		return err
	}
	if s.db, err = pgxpool.New(ctx, s.pg.URL()); err != nil {
		return err
	}
	var backend int
	var fsync, commit string
	err = s.db.QueryRow(ctx, `select pg_backend_pid(), current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&backend, &fsync, &commit)
	if err != nil {
		return err
	}
	if fsync != "on" || commit != "on" {
		return errors.New("this Postgres is not durable: nothing that is measured with it counts")
	}
	if s.postmaster, err = proc.Parent(backend); err != nil {
		return err
	}
	if runtime.NumCPU() > 2 { // which are then neither the proxy's nor the load's
		return proc.Pin(s.postmaster, "2-"+strconv.Itoa(runtime.NumCPU()-1))
	}
	return nil
}

// start starts a process that close ends.
func (s *stand) start(c proc.Command) (*proc.Process, error) {
	c.Log = filepath.Join(s.dir, c.Name+".log")
	p, err := proc.Start(c)
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return p, err
}

// startService starts one of ours on a core, and waits until it is ready.
func (s *stand) startService(ctx context.Context, name, cores string, env []string) error {
	svc := service{}
	var err error
	if svc.grpc, err = port.Free("127.0.0.1:0"); err != nil {
		return err
	}
	if svc.http, err = port.Free("127.0.0.1:0"); err != nil {
		return err
	}
	prefix := strings.ToUpper(name)
	env = append([]string{
		"DATABASE_URL=" + s.pg.URL(), "LLM_PROXY_MASTER_KEY=" + masterKey, "LLM_PROXY_SERVICE_TOKEN=" + serviceToken,
		prefix + "_GRPC_LISTEN=" + svc.grpc, prefix + "_HTTP_LISTEN=" + svc.http,
	}, env...)
	for other, o := range s.services {
		env = append(env, strings.ToUpper(other)+"_TARGET="+o.grpc)
	}
	if svc.Process, err = s.start(proc.Command{Name: name, Cores: cores, Args: []string{filepath.Join(s.dir, name)}, Env: env}); err != nil {
		return err
	}
	if err := awaitOK(ctx, svc.Process, "http://"+svc.http+"/readyz"); err != nil {
		return err
	}
	svc.conn, err = serve.Caller{Token: secret.New(masterKey)}.Dial(svc.grpc)
	s.services[name] = svc
	return err
}

// awaitOK asks until the answer is not an error of the server's.
func awaitOK(ctx context.Context, p *proc.Process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, status, err := get(ctx, url); err == nil && status < 500 {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Exited():
			return fmt.Errorf("%s ended:\n%s", p.Name, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.Name, ctx.Err(), p.Tail())
		}
	}
}

func get(ctx context.Context, url string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return body, resp.StatusCode, err
}

// pace sets how the upstream sends its streams.
func (s *stand) pace(ctx context.Context, p upstream.Pace) error {
	_, status, err := get(ctx, fmt.Sprintf("http://%s/bench/pace?%s,%s,%d", s.upstream, p.First, p.Gap, p.Deltas))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("set the upstream's pace: %d", status)
	}
	return err
}

// seen is what the upstream has counted.
func (s *stand) seen(ctx context.Context) (c upstream.Counts, err error) {
	body, _, err := get(ctx, "http://"+s.upstream+"/bench/counts")
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(body, &c)
}

// close ends what runs, last started first, and removes what was written.
func (s *stand) close() error {
	for _, svc := range s.services {
		if svc.conn != nil {
			svc.conn.Close()
		}
	}
	for n := len(s.processes) - 1; n >= 0; n-- {
		s.processes[n].Stop()
	}
	var errs []error
	if s.db != nil {
		s.db.Close()
	}
	if s.pg != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		errs = append(errs, s.pg.Stop(ctx))
		if home, err := filepath.EvalSymlinks(filepath.Join(s.dir, "pg", "postgres")); err == nil {
			errs = append(errs, os.RemoveAll(home)) // it may be elsewhere, see pglocal
		}
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
