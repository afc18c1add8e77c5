// Command proxysvc runs the edge and the spend ledger.
package main

import (
	"os"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/proxysvc"
)

func main() {
	paceCollector()
	os.Exit(serve.Main(os.Args, proxysvc.LoadConfig, proxysvc.Run, proxysvc.Migrate))
}
