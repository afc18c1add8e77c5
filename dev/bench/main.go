// Command bench measures the data path with its books on: proxysvc, on a Postgres
// that syncs to disk, side by side with proxies that keep no books. It installs
// and starts everything that it needs, prints one table, and writes it with the
// machine and the commit to docs/bench.
//
// See docs/performance.md for what it measures and how to read it.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/proc"
	"github.com/proliferate-ai/llm-proxy/dev/bench/internal/upstream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "upstream":
		err = serveUpstream(ctx, os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "reverse":
		err = serveReverse(ctx, os.Args[2], os.Args[3])
	default:
		err = bench(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serveUpstream is the process of the fake upstream.
func serveUpstream(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	return upstream.New().Serve(l)
}

// serveReverse is the process of the bare httputil.ReverseProxy: what net/http
// costs when nothing is done with what passes.
func serveReverse(ctx context.Context, addr, target string) error {
	to, err := url.Parse(target)
	if err != nil {
		return err
	}
	srv := &http.Server{Addr: addr, Handler: &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		FlushInterval: -1,
		Transport:     &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true},
	}}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bench runs what was chosen, from nothing to the report.
func bench(ctx context.Context, args []string) (err error) {
	set, err := parseSettings(args, os.Stderr)
	if err != nil {
		return err
	}
	chosen, err := choose(scenarios(), set.Bench, set.Targets)
	if err != nil {
		return err
	}
	s, err := newStand(ctx, set)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	// From here on this process is the load.
	runtime.GOMAXPROCS(1)
	if err := proc.Pin(os.Getpid(), loadCores); err != nil {
		return err
	}
	r := &report{stand: s, set: set, rounds: map[string][]round{}}
	for _, sc := range chosen {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.measure(ctx, sc); err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
	}
	if err := errors.Join(r.audit(ctx), s.writePGO(ctx)); err != nil {
		return err
	}
	text := r.markdown(ctx)
	fmt.Println(text)
	if err := r.write(text); err != nil {
		return err
	}
	if bad := r.broken(); len(bad) > 0 {
		return errors.New("the books are wrong: " + strings.Join(bad, "; "))
	}
	return nil
}
