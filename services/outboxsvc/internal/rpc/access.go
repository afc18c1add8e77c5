package rpc

import (
	outboxsvcv1 "github.com/proliferate-ai/llm-proxy/gen/outboxsvc/v1"
	"github.com/proliferate-ai/llm-proxy/kit/serve"
)

// Allow says what admin tokens of each scope may call: finance reads, and who issues
// keys has no business here.
func Allow() map[serve.Scope][]string {
	return map[serve.Scope][]string{
		serve.Read: {
			outboxsvcv1.OutboxService_GetStats_FullMethodName,
			outboxsvcv1.OutboxService_ListDeadCharges_FullMethodName,
			outboxsvcv1.OutboxService_GetSinkBalance_FullMethodName,
		},
	}
}
