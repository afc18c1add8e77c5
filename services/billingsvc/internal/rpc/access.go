package rpc

import (
	billingsvcv1 "github.com/proliferate-ai/llm-proxy/gen/billingsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// Allow says what admin tokens of each scope may call: finance reads everything, and
// who issues keys has no business here.
func Allow() map[serve.Scope][]string {
	return map[serve.Scope][]string{
		serve.Read: {
			billingsvcv1.BillingService_ListBillingEvents_FullMethodName,
			billingsvcv1.BillingService_GetBalance_FullMethodName,
			billingsvcv1.BillingService_ListBalances_FullMethodName,
			billingsvcv1.BillingService_ListCharges_FullMethodName,
			billingsvcv1.BillingService_ListPauses_FullMethodName,
			billingsvcv1.BillingService_ListMarkups_FullMethodName,
			billingsvcv1.BillingService_ListQuarantine_FullMethodName,
			billingsvcv1.BillingService_ListTransitions_FullMethodName,
			billingsvcv1.BillingService_ListReconciliations_FullMethodName,
			billingsvcv1.BillingService_ListTopUps_FullMethodName,
			billingsvcv1.BillingService_ListOperations_FullMethodName,
			billingsvcv1.BillingService_AuditBilling_FullMethodName,
		},
	}
}
