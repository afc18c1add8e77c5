module github.com/proliferate-ai/llm-proxy/services/billingsvc

go 1.26.0
