// Command testdb starts a throw-away Postgres, runs the command that it is given
// with TEST_DATABASE_URL leading to it, and ends with that command's status.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/proliferate-ai/llm-proxy/kit/pg/pglocal"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	if len(args) == 0 {
		return 2, errors.New("name the command to run")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	url := os.Getenv("TEST_DATABASE_URL")
	if url == "" {
		// Packages test in parallel, each with a pool or several a test.
		db, err := pglocal.Start(ctx, pglocal.Options{Ephemeral: true, Log: os.Stderr, MaxConnections: 500})
		if err != nil {
			return 1, err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			err = errors.Join(err, db.Stop(ctx))
		}()
		url = db.URL()
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // running a command is what it is for
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "TEST_DATABASE_URL="+url)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode(), nil
		}
		return 1, err
	}
	return 0, nil
}
