module github.com/proliferate-ai/llm-proxy/services/keysvc

go 1.26.0
