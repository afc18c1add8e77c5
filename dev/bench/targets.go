package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/proc"
	"github.com/proliferate-ai/llm-proxy/kit/port"
)

// The targets: our proxy, and what it is compared with.
const (
	direct   = "direct" // no proxy: what load and upstream make of it
	nginx    = "nginx"
	reverse  = "ReverseProxy" // httputil's, bare
	portkey  = "Portkey"
	proxysvc = "proxysvc"
)

// target is something that requests are sent to.
type target struct {
	name, addr string
	pids       []int    // roots of its processes
	headers    []string // that requests need besides the usual ones
	books      bool     // it keeps a ledger, which is checked
}

// target starts a target when it is first needed.
func (s *stand) target(ctx context.Context, name string) (*target, error) {
	if t, ok := s.targets[name]; ok {
		return t, nil
	}
	t := &target{name: name}
	var err error
	switch name {
	case direct:
		t.addr = s.upstream
	case nginx:
		err = s.startNginx(ctx, t)
	case reverse:
		err = s.startPeer(ctx, t, nil, func(addr string) []string { return []string{s.self, "reverse", addr, "http://" + s.upstream} })
	case portkey:
		err = s.startPortkey(ctx, t)
	case proxysvc:
		svc := s.services[proxysvc]
		t.addr, t.pids, t.books = svc.http, []int{svc.PID()}, true
	default:
		err = errors.New("there is no such target")
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s.targets[name] = t
	return t, nil
}

// startPeer starts a peer on the proxy's core and waits until it answers.
func (s *stand) startPeer(ctx context.Context, t *target, env []string, args func(addr string) []string) error {
	var err error
	if t.addr, err = port.Free("127.0.0.1:0"); err != nil {
		return err
	}
	say("starting %s", t.name)
	p, err := s.start(proc.Command{Name: t.name, Cores: proxyCores, Args: args(t.addr), Env: env})
	if err != nil {
		return err
	}
	t.pids = []int{p.PID()}
	return awaitOK(ctx, p, "http://"+t.addr+"/bench/ready")
}

// nginxConf makes nginx do nothing but pass on: one worker, connections kept to
// both sides, nothing held back, no log.
const nginxConf = `daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr error;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path %[1]s;
  proxy_temp_path %[1]s;
  fastcgi_temp_path %[1]s;
  uwsgi_temp_path %[1]s;
  scgi_temp_path %[1]s;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  keepalive_requests 1000000000;
  upstream up { server %[3]s; keepalive 2048; keepalive_requests 1000000000; }
  server {
    listen %[2]s backlog=4096;
    location / {
      proxy_pass http://up;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`

func (s *stand) startNginx(ctx context.Context, t *target) error {
	program, err := program(ctx, "nginx", "nginx-light")
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "nginx")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	conf := filepath.Join(dir, "nginx.conf")
	return s.startPeer(ctx, t, nil, func(addr string) []string {
		err = os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, addr, s.upstream), 0o644)
		return []string{program, "-p", dir, "-c", conf}
	})
}

// program finds a program, or installs the package of the system that has it.
func program(ctx context.Context, name, pkg string) (string, error) {
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	say("installing %s", pkg)
	// It is run by us alone: a package may not start it as a service.
	install := "apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends " + pkg
	if out, err := exec.CommandContext(ctx, "sh", "-c", install).CombinedOutput(); err != nil {
		return "", fmt.Errorf("install %s, or put %s on the PATH: %w\n%s", pkg, name, err, out[max(0, len(out)-1000):])
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// portkeyVersion is the release that is measured, and portkeyPackage what is
// installed: with the newest hono that it allows, its streams of messages end in an
// error ("immutable"), so an older one that it allows as well is named.
const (
	portkeyVersion = "1.15.2"
	portkeyPackage = `{
  "private": true,
  "dependencies": {"@portkey-ai/gateway": "` + portkeyVersion + `"},
  "overrides": {"@hono/node-server": "1.13.7", "hono": "4.9.7"}
}
`
)

// installPortkey installs Portkey's gateway from npm, once, and returns its program.
func installPortkey(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "llmproxy-bench", "portkey")
	main := filepath.Join(dir, "node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
	file := filepath.Join(dir, "package.json")
	if has, err := os.ReadFile(file); err == nil && string(has) == portkeyPackage {
		if _, err := os.Stat(main); err == nil {
			return main, nil
		}
	}
	say("installing Portkey's gateway from npm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(file, []byte(portkeyPackage), 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w\n%s", err, out)
	}
	return main, nil
}

// startPortkey starts Portkey's gateway, which is told by headers where to go.
func (s *stand) startPortkey(ctx context.Context, t *target) error {
	main, err := installPortkey(ctx)
	if err != nil {
		return err
	}
	t.headers = []string{"X-Portkey-Provider: anthropic", "X-Portkey-Custom-Host: http://" + s.upstream + "/v1"}
	return s.startPeer(ctx, t, []string{"NODE_ENV=production", "TRUSTED_CUSTOM_HOSTS=127.0.0.1"}, func(addr string) []string {
		_, number, _ := net.SplitHostPort(addr) // it was chosen here
		return []string{"node", main, "--port=" + number, "--headless"}
	})
}
