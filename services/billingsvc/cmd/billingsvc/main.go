// Command billingsvc runs the billing service; "billingsvc migrate" brings its
// database up to date and ends.
package main

import (
	"os"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/billingsvc"
)

func main() {
	os.Exit(serve.Main(os.Args, billingsvc.LoadConfig, billingsvc.Run, billingsvc.Migrate))
}
