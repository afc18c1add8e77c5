module github.com/proliferate-ai/llm-proxy/services/outboxsvc

go 1.26.0
