// Package credential finds the secret that a sink is called with: in the
// environment, or in a file, which may come, change and go while we run.
package credential

import (
	"os"
	"strings"

	"github.com/proliferate-ai/llm-proxy/kit/secret"
)

// maxSecret bounds what is read of a file.
const maxSecret = 4096

// Source is where a secret is. The file wins; the zero value has none.
type Source struct {
	Value secret.String
	File  string
}

// Current returns the secret as it is now; empty when there is none. A file that
// cannot be read is none: what it is for then waits.
func (s Source) Current() secret.String {
	if s.File == "" {
		return s.Value
	}
	text, err := os.ReadFile(s.File)
	if err != nil || len(text) > maxSecret {
		return secret.String{}
	}
	return secret.New(strings.TrimSpace(string(text)))
}
