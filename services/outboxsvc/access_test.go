package outboxsvc

import (
	"regexp"
	"testing"

	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve/scopetest"
	"github.com/proliferate-ai/llm-proxy/sim/autumn"
)

func TestFinanceReadsAndChangesNothing(t *testing.T) {
	t.Parallel()
	tokens, err := LoadConfig(settings(scopetest.Settings()))
	if err != nil {
		t.Fatal(err)
	}
	var addr string
	start(t, &book{}, autumn.New(autumn.Options{SecretKey: apiKey}), func(cfg *Config) {
		cfg.Serve.Tokens, cfg.Serve.AuthFailures, addr = tokens.Serve.Tokens, tokens.Serve.AuthFailures, cfg.Serve.GRPCListen
	})
	scopetest.Walk(t, addr, outboxsvcv1.OutboxService_ServiceDesc, regexp.MustCompile(`^(Get|List)`),
		outboxsvcv1.OutboxService_ListDeadCharges_FullMethodName, token)
}
