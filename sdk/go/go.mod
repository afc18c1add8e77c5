module github.com/proliferate-ai/llm-proxy/sdk/go

go 1.26.0
