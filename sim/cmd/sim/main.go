// Command sim serves a simulator: `sim anthropic` or `sim autumn`.
//
// It reads SIM_LISTEN (default :8200), the key that it accepts from
// ANTHROPIC_API_KEY or AUTUMN_API_KEY, SIM_CHUNK_DELAY (the pause between the
// pieces of a stream, default 15ms) and SIM_GRANT (credits of a new customer,
// default 10000). It exits with 2 when one of them is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/proliferate-ai/llm-proxy/sim/anthropic"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

func main() {
	os.Exit(run(os.Args[1:], os.Getenv))
}

func run(args []string, getenv func(string) string) int {
	handler, err := simulator(args, getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listen := getenv("SIM_LISTEN")
	if listen == "" {
		listen = ":8200"
	}
	server := &http.Server{Addr: listen, Handler: withHealth(handler), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "sim:", err)
		return 1
	}
	return 0
}

// simulator makes the one that args name.
func simulator(args []string, getenv func(string) string) (http.Handler, error) {
	if len(args) != 1 {
		return nil, errors.New("usage: sim anthropic | sim autumn")
	}
	switch args[0] {
	case "anthropic":
		delay, err := time.ParseDuration(or(getenv("SIM_CHUNK_DELAY"), "15ms"))
		if err != nil {
			return nil, fmt.Errorf("SIM_CHUNK_DELAY: %w", err)
		}
		return anthropic.New(anthropic.Options{APIKey: getenv("ANTHROPIC_API_KEY"), ChunkDelay: delay}), nil
	case "autumn":
		grant, err := strconv.ParseInt(or(getenv("SIM_GRANT"), "10000"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("SIM_GRANT: %w", err)
		}
		return autumn.New(autumn.Options{SecretKey: getenv("AUTUMN_API_KEY"), DefaultGrant: grant}), nil
	}
	return nil, fmt.Errorf("there is no simulator of %q: anthropic or autumn", args[0])
}

func or(value, def string) string {
	if value == "" {
		return def
	}
	return value
}

// withHealth answers /readyz, which no vendor has.
func withHealth(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.Handle("/", h)
	return mux
}
