// Command outboxsvc runs the outbox service.
package main

import (
	"os"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/outboxsvc"
)

func main() {
	os.Exit(serve.Main(os.Args, outboxsvc.LoadConfig, outboxsvc.Run, nil))
}
