package chaos

import (
	"math/big"
	"testing"

	"github.com/proliferate-ai/llm-proxy/dev/listprice"
)

// byHand prices usage in nano-dollars.
func byHand(t *testing.T, model string, u usage) *big.Int {
	t.Helper()
	cost, ok := listprice.Cost(model, listprice.Usage{Input: u.input, Output: u.output, Write5m: u.write5m, Write1h: u.write1h, Read: u.read})
	if !ok {
		t.Fatalf("no price by hand for %s", model)
	}
	return cost
}
