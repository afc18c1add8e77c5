module github.com/proliferate-ai/llm-proxy/cmd/llmproxy

go 1.26.0

require (
	github.com/proliferate-ai/llm-proxy/gen v0.0.0
	github.com/proliferate-ai/llm-proxy/kit v0.0.0
	github.com/proliferate-ai/llm-proxy/services/billingsvc v0.0.0
	github.com/proliferate-ai/llm-proxy/services/keysvc v0.0.0
	github.com/proliferate-ai/llm-proxy/services/outboxsvc v0.0.0
	github.com/proliferate-ai/llm-proxy/services/proxysvc v0.0.0
	github.com/proliferate-ai/llm-proxy/sim v0.0.0
)

replace (
	github.com/proliferate-ai/llm-proxy/gen => ../../gen
	github.com/proliferate-ai/llm-proxy/kit => ../../kit
	github.com/proliferate-ai/llm-proxy/services/billingsvc => ../../services/billingsvc
	github.com/proliferate-ai/llm-proxy/services/keysvc => ../../services/keysvc
	github.com/proliferate-ai/llm-proxy/services/outboxsvc => ../../services/outboxsvc
	github.com/proliferate-ai/llm-proxy/services/proxysvc => ../../services/proxysvc
	github.com/proliferate-ai/llm-proxy/sim => ../../sim
)
