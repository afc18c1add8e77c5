module github.com/proliferate-ai/llm-proxy/services/proxysvc

go 1.26.0

require (
	github.com/jackc/pgx/v5 v5.12.0
	github.com/proliferate-ai/llm-proxy/kit v0.0.0
	go.yaml.in/yaml/v3 v3.0.5
)

require (
	github.com/fergusstrange/embedded-postgres v1.34.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/lib/pq v1.10.9 // indirect
	github.com/xi2/xz v0.0.0-20171230120015-48954b6210f8 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace (
	github.com/proliferate-ai/llm-proxy/gen => ../../gen
	github.com/proliferate-ai/llm-proxy/kit => ../../kit
	github.com/proliferate-ai/llm-proxy/sim => ../../sim
)
