package dev

import (
	"slices"

	proxyv1 "github.com/proliferate-ai/llm-proxy/gen/proxysvc/v1"
)

// scenario is something that a client does, and what must be known of it
// afterwards beyond what the client itself checks.
type scenario struct {
	name string
	// upstream is how many of its requests reach the simulator.
	upstream int
	// rows are the statuses of its rows on the ledger, in the order of the enum.
	rows []proxyv1.SpendStatus
	// early is why the simulator ended its answers early. Empty: it ended none.
	early string
	// rewritten says that the proxy may change the requests.
	rewritten bool
}

const (
	completed   = proxyv1.SpendStatus_SPEND_STATUS_COMPLETED
	failed      = proxyv1.SpendStatus_SPEND_STATUS_FAILED
	interrupted = proxyv1.SpendStatus_SPEND_STATUS_INTERRUPTED
	aborted     = proxyv1.SpendStatus_SPEND_STATUS_ABORTED
)

type statuses = []proxyv1.SpendStatus

// commonScenarios are those of every client.
var commonScenarios = []scenario{
	{name: "a stream", upstream: 1, rows: statuses{completed}},
	{name: "an answer in one piece", upstream: 1, rows: statuses{completed}},
	{name: "a tool and its result", upstream: 2, rows: statuses{completed, completed}},
	{name: "a tool and its result in streams", upstream: 2, rows: statuses{completed, completed}},
	{name: "a request of 20 MB", upstream: 1, rows: statuses{completed}},
	{name: "twenty streams at once", upstream: 20, rows: slices.Repeat(statuses{completed}, 20)},
	{name: "a bad request", upstream: 1, rows: statuses{failed}},
	{name: "a wrong key"},
	{name: "a budget that is used up"},
	{name: "an unknown model"},
	{name: "a rate limit that passes", upstream: 2, rows: statuses{completed, failed}},
	{name: "an overload that passes", upstream: 3, rows: statuses{completed, failed, failed}},
	{name: "an error in the stream", upstream: 1, rows: statuses{interrupted}, early: "stream_error"},
	{name: "a cut connection", upstream: 1, rows: statuses{interrupted}, early: "cut"},
	{name: "an abort", upstream: 1, rows: statuses{aborted}, early: "client_aborted"},
}

// sdkScenarios are those of Anthropic's own SDKs, in every language.
var sdkScenarios = []scenario{
	{name: "a beta", upstream: 1, rows: statuses{completed}},
	{name: "a base URL that ends in v1", upstream: 1, rows: statuses{completed}},
	{name: "counted tokens", upstream: 2, rows: statuses{completed}},
	{name: "the list of models"},
	{name: "one model"},
}

// typeScriptScenarios are those of its TypeScript SDK alone.
var typeScriptScenarios = []scenario{
	{name: "a stream in raw events", upstream: 1, rows: statuses{completed}},
	{name: "the tool runner", upstream: 2, rows: statuses{completed, completed}},
	{name: "thinking that goes back", upstream: 2, rows: statuses{completed, completed}},
	{name: "a prompt from the cache", upstream: 2, rows: statuses{completed, completed}},
}

// threadScenarios are those of the SDKs that leave a conversation with the
// server and send only its new turns.
var threadScenarios = []scenario{
	{name: "a thread that the server holds", upstream: 2, rows: statuses{completed, completed}},
	{name: "the tool runner in a thread", upstream: 2, rows: statuses{completed, completed}},
}

// aiScenarios are those of the Vercel AI SDK alone.
var aiScenarios = []scenario{
	{name: "the order of a stream", upstream: 1, rows: statuses{completed}},
	{name: "thinking that goes back", upstream: 2, rows: statuses{completed, completed}},
}
