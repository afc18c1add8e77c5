module github.com/proliferate-ai/llm-proxy/services/outboxsvc

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/proliferate-ai/llm-proxy/gen v0.0.0
	github.com/proliferate-ai/llm-proxy/kit v0.0.0
	github.com/proliferate-ai/llm-proxy/sim v0.0.0
	github.com/prometheus/client_golang v1.25.0
	go.uber.org/zap v1.28.0
	golang.org/x/sync v0.24.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

replace (
	github.com/proliferate-ai/llm-proxy/gen => ../../gen
	github.com/proliferate-ai/llm-proxy/kit => ../../kit
	github.com/proliferate-ai/llm-proxy/sim => ../../sim
)
