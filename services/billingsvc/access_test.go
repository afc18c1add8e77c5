package billingsvc

import (
	"regexp"
	"testing"

	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve/scopetest"
)

func TestFinanceReadsAndChangesNothing(t *testing.T) {
	t.Parallel()
	env := scopetest.Settings()
	addr := freeAddr(t)
	env["BILLINGSVC_GRPC_LISTEN"] = addr
	startWith(t, ledger{}, env)
	scopetest.Walk(t, addr, billingsvcv1.BillingService_ServiceDesc, regexp.MustCompile(`^(Get|List|Audit)`),
		billingsvcv1.BillingService_ListCharges_FullMethodName, token)
}
