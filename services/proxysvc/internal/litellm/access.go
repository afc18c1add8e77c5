package litellm

import litellmv1 "github.com/proliferate-ai/llm-proxy/gen/litellm/v1"

// OwnAuth lists the methods that take a virtual key instead of a master key.
func OwnAuth() []string { return []string{litellmv1.LiteLLMService_GetOwnKeyInfo_FullMethodName} }
