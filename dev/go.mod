module github.com/proliferate-ai/llm-proxy/dev

go 1.26.0
