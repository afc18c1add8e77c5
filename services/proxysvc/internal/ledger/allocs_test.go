//go:build !race

package ledger

import (
	"testing"

	"github.com/proliferate-ai/llm-proxy/services/proxysvc/internal/hotpath"
)

func TestAllocs(t *testing.T) { hotpath.Hold(t, hot(t)) }
