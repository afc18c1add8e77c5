module github.com/proliferate-ai/llm-proxy/cmd/llmproxy

go 1.26.0
