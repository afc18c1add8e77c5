package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main is the body of every service's main function: it loads the
// configuration, runs the service until SIGINT or SIGTERM and returns the exit
// status: 0 after a clean drain, 1 when the service failed, 2 when the command
// line or the configuration is wrong. The only argument that is taken is
// "migrate", which brings the database up to date and ends; a service without a
// database has none. The process leaves no core file.
func Main[C any](args []string, load func(getenv func(string) string) (C, error), run, migrate func(context.Context, C) error) int {
	if len(args) > 2 || len(args) == 2 && (args[1] != "migrate" || migrate == nil) {
		fmt.Fprintf(os.Stderr, "usage: %s [migrate]\n", args[0])
		return 2
	}
	if err := NoCoreFiles(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cfg, err := load(os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "configuration:\n%v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(args) == 2 {
		run = migrate
	}
	if err := run(ctx, cfg); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
