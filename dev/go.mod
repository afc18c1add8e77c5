module github.com/proliferate-ai/llm-proxy/dev

go 1.26.0

require (
	github.com/anthropics/anthropic-sdk-go v1.84.0
	github.com/anthropics/anthropic-sdk-go/v2 v2.13.0
	github.com/google/go-cmp v0.7.0
	github.com/google/pprof v0.0.0-20261105003125-4bf881d7fb0b
	github.com/jackc/pgx/v5 v5.12.0
	github.com/proliferate-ai/llm-proxy/gen v0.0.0
	github.com/proliferate-ai/llm-proxy/kit v0.0.0
	github.com/proliferate-ai/llm-proxy/sdk/go v0.0.0
	github.com/proliferate-ai/llm-proxy/services/billingsvc v0.0.0-00010101000000-000000000000
	github.com/proliferate-ai/llm-proxy/services/keysvc v0.0.0-00010101000000-000000000000
	github.com/proliferate-ai/llm-proxy/services/outboxsvc v0.0.0-00010101000000-000000000000
	github.com/proliferate-ai/llm-proxy/services/proxysvc v0.0.0-00010101000000-000000000000
	github.com/proliferate-ai/llm-proxy/sim v0.0.0
	go.yaml.in/yaml/v3 v3.0.5
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
	google.golang.org/genproto/googleapis/api v0.0.0-20261026165753-2ffab32bce7e
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/bahlo/generic-list-go v0.2.0 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/buger/jsonparser v1.1.2 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/fergusstrange/embedded-postgres v1.34.0 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0 // indirect
	github.com/invopop/jsonschema v0.14.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/lib/pq v1.10.9 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pb33f/ordered-map/v2 v2.3.1 // indirect
	github.com/prometheus/client_golang v1.25.0 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1 // indirect
	github.com/tidwall/gjson v1.18.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
	github.com/xi2/xz v0.0.0-20171230120015-48954b6210f8 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/log v1.47.0 // indirect
	go.opentelemetry.io/otel/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.uber.org/multierr v1.10.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	go.yaml.in/yaml/v4 v4.0.0-rc.2 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
)

replace (
	github.com/proliferate-ai/llm-proxy/cmd/llmproxy => ../cmd/llmproxy
	github.com/proliferate-ai/llm-proxy/gen => ../gen
	github.com/proliferate-ai/llm-proxy/kit => ../kit
	github.com/proliferate-ai/llm-proxy/sdk/go => ../sdk/go
	github.com/proliferate-ai/llm-proxy/services/billingsvc => ../services/billingsvc
	github.com/proliferate-ai/llm-proxy/services/keysvc => ../services/keysvc
	github.com/proliferate-ai/llm-proxy/services/outboxsvc => ../services/outboxsvc
	github.com/proliferate-ai/llm-proxy/services/proxysvc => ../services/proxysvc
	github.com/proliferate-ai/llm-proxy/sim => ../sim
)
