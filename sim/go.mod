module github.com/proliferate-ai/llm-proxy/sim

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/proliferate-ai/llm-proxy/kit v0.0.0
)

replace github.com/proliferate-ai/llm-proxy/kit => ../kit
