package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// upFlags are the flags of `llmproxy up`.
type upFlags struct {
	data, http, readyFile string
	ephemeral, split      bool
	replicas              map[string]int
}

func parseUp(args []string) (upFlags, error) {
	f := upFlags{replicas: map[string]int{}}
	fs := flag.NewFlagSet("up", flag.ContinueOnError)
	fs.StringVar(&f.data, "data", ".llmproxy", "`DIR` for the database and logs")
	fs.BoolVar(&f.ephemeral, "ephemeral", false, "use a temporary directory instead, removed on exit")
	fs.StringVar(&f.http, "http", "127.0.0.1:4000", "`ADDR` of the proxy; port 0: any free one")
	fs.StringVar(&f.readyFile, "ready-file", "", "`FILE` to write when everything answers (JSON)")
	fs.BoolVar(&f.split, "split", false, "run each service as a process of its own")
	fs.Func("replicas", "`NAME=N` replicas of a service, with --split; several separated by commas", func(text string) error {
		for part := range strings.SplitSeq(text, ",") {
			name, count, _ := strings.Cut(part, "=")
			n, err := strconv.Atoi(count)
			if _, known := serviceNamed(name); !known || err != nil || n < 1 || n > 64 {
				return fmt.Errorf("%q is not NAME=N with a service's name and N from 1 to 64", part)
			}
			f.replicas[name] = n
		}
		return nil
	})
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f, err
		}
		return f, errUsage // flag has shown it
	}
	if fs.NArg() > 0 {
		return f, usageError("up takes no arguments, only flags: %q", fs.Args())
	}
	if len(f.replicas) > 0 && !f.split {
		return f, usageError("--replicas needs --split: one process holds one replica of each service")
	}
	return f, nil
}

// up runs the suite until ctx ends.
func up(ctx context.Context, args []string) (err error) {
	f, err := parseUp(args)
	if err != nil {
		return err
	}
	dir, removeDir, err := dataDir(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeDir()) }()

	s := &starter{dir: dir, flags: f, env: os.Getenv, out: os.Stdout}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	s.banner()
	select {
	case <-ctx.Done():
		fmt.Fprintln(os.Stdout, "\nStopping: running streams are finished first; Ctrl-C again ends at once.")
		return nil
	case err := <-s.failed:
		return err
	}
}

// dataDir makes the suite's directory.
func dataDir(f upFlags) (dir string, remove func() error, err error) {
	if f.ephemeral {
		dir, err = os.MkdirTemp("", "llmproxy-")
		if err != nil {
			return "", nil, fmt.Errorf("make a temporary directory: %w", err)
		}
		return dir, func() error { return os.RemoveAll(dir) }, nil
	}
	if dir, err = filepath.Abs(f.data); err != nil {
		return "", nil, fmt.Errorf("--data: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("--data: %w", err)
	}
	return dir, func() error { return nil }, nil
}

// starter brings the suite up piece by piece and takes down what it brought up.
type starter struct {
	dir    string
	flags  upFlags
	env    func(string) string
	out    io.Writer
	ready  Ready
	stops  []func() error // in the order of starting
	failed chan error     // a service that ended by itself
	// Who answers for the vendors, in words.
	anthropicIs, autumnIs string
}

func (s *starter) start(ctx context.Context) error {
	s.failed = make(chan error, 64)
	common, err := s.secrets()
	if err != nil {
		return err
	}
	if err := s.upstreams(common); err != nil {
		return err
	}
	httpAddr := s.flags.http
	all, err := instances(httpAddr, s.flags.replicas, common)
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.name == "proxysvc" && i.replica == 1 {
			s.ready.ProxyURL = "http://" + reachable(i.httpAddr)
		}
	}
	for n := range all {
		if s.env("LLM_PROXY_PUBLIC_URL") == "" {
			all[n].env["LLM_PROXY_PUBLIC_URL"] = s.ready.ProxyURL
		}
	}
	if err := s.check(all); err != nil {
		return err
	}
	if err := s.database(ctx); err != nil {
		return err
	}
	for n := range all {
		all[n].env["DATABASE_URL"] = s.ready.DatabaseURL
	}
	if err := s.services(ctx, all); err != nil {
		return err
	}
	return s.writeReady()
}

// secrets chooses the master key and the service token. The master key stays
// the same for a data directory.
func (s *starter) secrets() (map[string]string, error) {
	master := s.env("LLM_PROXY_MASTER_KEY")
	if master == "" {
		master = s.env("LITELLM_MASTER_KEY")
	}
	if master == "" {
		var err error
		if master, err = keepSecret(filepath.Join(s.dir, "master-key"), "sk-"); err != nil {
			return nil, err
		}
	}
	s.ready.MasterKey, _, _ = strings.Cut(master, ",")
	common := map[string]string{"LLM_PROXY_MASTER_KEY": master, "LITELLM_MASTER_KEY": ""}
	if s.env("LLM_PROXY_SERVICE_TOKEN") == "" {
		common["LLM_PROXY_SERVICE_TOKEN"] = rand.Text()
	}
	return common, nil
}

// keepSecret reads a secret from a file, or makes it.
func keepSecret(path, prefix string) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // our own file
	if err == nil && len(strings.TrimSpace(string(text))) >= 16 {
		return strings.TrimSpace(string(text)), nil
	}
	value := prefix + rand.Text()
	if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the master key: %w", err)
	}
	return value, nil
}

// check loads every configuration before anything is started, so that all that
// is wrong is said at once.
func (s *starter) check(all []instance) error {
	seen := map[string]bool{}
	var lines []string
	for _, i := range all {
		env := i.getenv(s.env)
		_, err := i.load(func(name string) string {
			if name == "DATABASE_URL" && env(name) == "" {
				return "postgres://decided-later"
			}
			return env(name)
		})
		if err == nil {
			continue
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !seen[line] {
				seen[line] = true
				lines = append(lines, line)
			}
		}
	}
	if len(lines) > 0 {
		return usageError("configuration:\n%s", strings.Join(lines, "\n"))
	}
	return nil
}

// database uses DATABASE_URL, or starts a Postgres of our own.
func (s *starter) database(ctx context.Context) error {
	if url := s.env("DATABASE_URL"); url != "" {
		s.ready.DatabaseURL = url
		return nil
	}
	o := pglocal.Options{Dir: s.dir, Log: os.Stderr, MaxConnections: 200}
	if s.flags.ephemeral {
		o.Dir, o.Ephemeral = "", true
	}
	server, err := pglocal.Start(ctx, o)
	if err != nil {
		return err
	}
	s.ready.DatabaseURL = server.URL()
	stopping := context.WithoutCancel(ctx) // what ends the suite must not end its database first
	s.stops = append(s.stops, func() error {
		ctx, cancel := context.WithTimeout(stopping, 30*time.Second)
		defer cancel()
		return server.Stop(ctx)
	})
	return nil
}

// startTimeout bounds the start of all services together.
const startTimeout = time.Minute

func (s *starter) services(ctx context.Context, all []instance) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	logs := filepath.Join(s.dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return fmt.Errorf("make the log directory: %w", err)
	}
	launch := s.inProcess
	if s.flags.split {
		launch = s.child
	}
	for _, i := range all {
		entry := ReadyService{Name: i.name, GRPCAddr: reachable(i.grpcAddr), HTTPAddr: reachable(i.httpAddr)}
		ended, err := launch(i, filepath.Join(logs, i.label(s.flags.replicas)+".log"), &entry)
		if err != nil {
			return err
		}
		s.ready.add(entry)
		if err := s.await(ctx, i, ended); err != nil {
			return err
		}
	}
	return nil
}

// await waits until the instance is ready, or has ended.
func (s *starter) await(ctx context.Context, i instance, ended <-chan error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready := make(chan error, 1)
	go func() { ready <- awaitReady(ctx, i) }()
	select {
	case err := <-ready:
		if err != nil {
			return fmt.Errorf("%w; see %s", err, filepath.Join(s.dir, "logs"))
		}
		return nil
	case err := <-ended:
		return fmt.Errorf("start %s: %w", i.name, err)
	}
}

// stop takes everything down, last started first.
func (s *starter) stop() error {
	var errs []error
	for n := len(s.stops) - 1; n >= 0; n-- {
		errs = append(errs, s.stops[n]())
	}
	return errors.Join(errs...)
}

// masked hides the password of a database URL for people's eyes.
func masked(url string) string {
	before, after, ok := strings.Cut(url, "@")
	scheme, user, hasScheme := strings.Cut(before, "://")
	if !ok || !hasScheme {
		return url
	}
	name, _, hasPassword := strings.Cut(user, ":")
	if !hasPassword {
		return url
	}
	return scheme + "://" + name + ":" + secret.Mask + "@" + after
}
