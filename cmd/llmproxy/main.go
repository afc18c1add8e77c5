// Command llmproxy is the binary for people: `up` runs the whole suite on an
// embedded Postgres, `demo` shows the main job on it, and the rest are an
// administrator's commands.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

const usage = `llmproxy runs and looks after LLM Proxy.

  llmproxy up       run the whole suite; see llmproxy up -h
  llmproxy demo     run the main job against the running suite and show it
  llmproxy audit    check that all sums agree, from the ledger to Autumn
  llmproxy key      issue, show, list, revoke
  llmproxy team     show, list, status
  llmproxy spend    list, open, events
  llmproxy outbox   stats, dead, doubts, topups, requeue, resolve, resolve-topup, pause, resume, reconcile
  llmproxy prices   list, explain, check, correct

All but up find the suite by --ready-file, by ./.llmproxy/ready.json, or by
LLM_PROXY_URL, LLM_PROXY_MASTER_KEY, KEYSVC_TARGET, PROXYSVC_TARGET,
BILLINGSVC_TARGET and OUTBOXSVC_TARGET.
`

// errUsage ends the program with status 2; its text has been shown.
var errUsage = errors.New("usage")

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends at once
	commands := map[string]func(context.Context, []string) error{
		"up": up, "serve": serveChild, "demo": demo, "audit": audit,
		"key": keyCommand, "team": teamCommand, "spend": spendCommand, "outbox": outboxCommand, "prices": pricesCommand,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	err := serve.NoCoreFiles()
	if err == nil {
		err = commands[args[0]](ctx, args[1:])
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintf(os.Stderr, "llmproxy %s: %v\n", args[0], err)
	return 1
}

// usageError reports a fault of the command line or the configuration.
func usageError(format string, args ...any) error {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return errUsage
}
