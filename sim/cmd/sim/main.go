// Command sim serves a simulator until SIGINT or SIGTERM: `sim anthropic`,
// `sim openai`, `sim autumn` or `sim stripe`. Besides the vendor's routes it
// answers GET /healthz.
//
// It reads
//
//	SIM_LISTEN         host:port to listen on, port 0: any free one (default :8200)
//	ANTHROPIC_API_KEY  the only key that anthropic accepts (default: any)
//	OPENAI_API_KEY     the only key that openai accepts (default: any)
//	AUTUMN_API_KEY     the only key that autumn accepts (default: any am_sk_ key)
//	STRIPE_API_KEY     the only key that stripe accepts (default: any sk_ key)
//	SIM_CHUNK_DELAY    the pause before each piece of a stream (default 15ms)
//	SIM_GRANT          the credits of a new customer (default 10000)
//
// It exits with 0 after a signal, with 1 when it cannot serve and with 2 when
// the command line or a variable is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// grace is how long answers may still take after a signal. A script can make one
// stall for ever.
const grace = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv))
}

func run(ctx context.Context, args []string, getenv func(string) string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: sim anthropic | sim openai | sim autumn | sim stripe")
		return 2
	}
	handler, err := simulator(args[0], getenv) //nolint:contextcheck // its handlers have the context of their requests
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		return 2
	}
	if err := serve(ctx, args[0], or(getenv("SIM_LISTEN"), ":8200"), handler); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		return 1
	}
	return 0
}

// serve serves h on addr until ctx ends, and says where on standard error.
func serve(ctx context.Context, name, addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("SIM_LISTEN: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	fmt.Fprintln(os.Stderr, "sim:", name, "serves on", l.Addr())
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", name, err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close() // what stalls by script never ends by itself
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	return nil
}
