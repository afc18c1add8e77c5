// Command keysvc serves virtual keys and teams. "keysvc migrate" brings its
// database up to date and ends.
package main

import (
	"os"

	"github.com/proliferate-ai/llm-proxy/kit/serve"
	"github.com/proliferate-ai/llm-proxy/services/keysvc"
)

func main() {
	os.Exit(serve.Main(os.Args, keysvc.LoadConfig, keysvc.Run, keysvc.Migrate))
}
