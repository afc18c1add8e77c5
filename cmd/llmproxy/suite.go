package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/port"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc"
	"github.com/proliferate-ai/llm-proxy/services/keysvc"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc"
)

// service is one kind of service that up can run.
type service struct {
	name   string
	prefix string // of its own variables
	// load checks the configuration and returns what runs with it.
	load func(getenv func(string) string) (func(ctx context.Context, log io.Writer) error, error)
}

// services in the order in which they start; they stop in reverse.
var services = []service{
	{"keysvc", "KEYSVC", func(getenv func(string) string) (func(context.Context, io.Writer) error, error) {
		cfg, err := keysvc.LoadConfig(getenv)
		return func(ctx context.Context, log io.Writer) error { cfg.Serve.LogTo = log; return keysvc.Run(ctx, cfg) }, err
	}},
	{"proxysvc", "PROXYSVC", func(getenv func(string) string) (func(context.Context, io.Writer) error, error) {
		cfg, err := proxysvc.LoadConfig(getenv)
		return func(ctx context.Context, log io.Writer) error { cfg.Serve.LogTo = log; return proxysvc.Run(ctx, cfg) }, err
	}},
	{"billingsvc", "BILLINGSVC", func(getenv func(string) string) (func(context.Context, io.Writer) error, error) {
		cfg, err := billingsvc.LoadConfig(getenv)
		return func(ctx context.Context, log io.Writer) error { cfg.Serve.LogTo = log; return billingsvc.Run(ctx, cfg) }, err
	}},
	{"outboxsvc", "OUTBOXSVC", func(getenv func(string) string) (func(context.Context, io.Writer) error, error) {
		cfg, err := outboxsvc.LoadConfig(getenv)
		return func(ctx context.Context, log io.Writer) error { cfg.Serve.LogTo = log; return outboxsvc.Run(ctx, cfg) }, err
	}},
}

func serviceNamed(name string) (service, bool) {
	for _, s := range services {
		if s.name == name {
			return s, true
		}
	}
	return service{}, false
}

// instance is one replica of a service, with its addresses.
type instance struct {
	service
	replica            int // from 1
	grpcAddr, httpAddr string
	env                map[string]string
}

// label is the instance's name for people and for its log file.
func (i instance) label(replicas map[string]int) string {
	if replicas[i.name] > 1 {
		return fmt.Sprintf("%s-%d", i.name, i.replica)
	}
	return i.name
}

// getenv looks a variable up among the instance's own, then elsewhere.
func (i instance) getenv(outer func(string) string) func(string) string {
	return func(name string) string {
		if v, ok := i.env[name]; ok {
			return v
		}
		return outer(name)
	}
}

// instances plans every replica: its addresses, and the variables that tie them
// together. All ports are chosen now, so that everyone can be told of everyone.
func instances(httpAddr string, replicas map[string]int, common map[string]string) ([]instance, error) {
	var all []instance
	targets := map[string][]string{}
	for _, s := range services {
		for n := 1; n <= max(1, replicas[s.name]); n++ {
			i := instance{service: s, replica: n}
			var err error
			if i.grpcAddr, err = port.Free("127.0.0.1:0"); err != nil {
				return nil, err
			}
			want := "127.0.0.1:0"
			if s.name == "proxysvc" && n == 1 {
				want = httpAddr
			}
			if i.httpAddr, err = port.Free(want); err != nil {
				return nil, fmt.Errorf("proxysvc wants %s (--http): %w", want, err)
			}
			targets[s.name] = append(targets[s.name], i.grpcAddr)
			all = append(all, i)
		}
	}
	for n := range all {
		i := &all[n]
		i.env = map[string]string{
			i.prefix + "_GRPC_LISTEN": i.grpcAddr,
			i.prefix + "_HTTP_LISTEN": i.httpAddr,
		}
		for name, addrs := range targets {
			i.env[strings.ToUpper(name)+"_TARGET"] = strings.Join(addrs, ",")
		}
		for name, value := range common {
			i.env[name] = value
		}
	}
	return all, nil
}

// awaitReady asks an instance until it is ready, or ctx ends.
func awaitReady(ctx context.Context, i instance) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if isReady(ctx, i.httpAddr) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", i.name, context.Cause(ctx))
		}
	}
}

func isReady(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(addr)+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close() // only the status counts
	return resp.StatusCode == http.StatusOK
}

// reachable turns an address that listens everywhere into one to call.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
