// Package anthropic is a stand-in for Anthropic's Messages API, faithful enough
// for the official SDKs and for coding agents, with faults on request and with
// an oracle that says what was really served. It calls no one and generates no
// language: answers are fixed text of a known number of tokens.
//
// # What it serves
//
//	POST /v1/messages               streaming or not, tools, thinking, prompt cache, web search
//	POST /v1/messages/count_tokens  the prompt total that /v1/messages would report
//	GET  /v1/models, /v1/models/ID  limit, after_id, before_id
//
// Everything else is a 404 in Anthropic's error shape. One credential is
// accepted, in x-api-key or in Authorization: Bearer, never in both; any other
// "sk-" text in any header is refused, because it would be a leaked virtual key.
//
// # Tokens
//
// Counts depend only on the request: text counts a quarter of its bytes, rounded
// up, other blocks and tools their JSON likewise, an image 1500. Blocks that are
// marked with cache_control end a cached prefix: the longest prefix that the
// same key and model wrote before (5 minutes, or an hour with ttl "1h") is
// reported as read, what follows up to the last mark as written. There is no
// smallest cacheable size. A web search adds 500 input tokens each, which show
// only in message_delta, as with the real API.
//
// # Scripts
//
// A request chooses its own fate by markers in the text of its last user
// message, [[sim:NAME=VALUE;NAME=VALUE]], or by the header x-sim-script:
// NAME=VALUE;NAME=VALUE. Both may be given; what is named twice is taken from
// the message. An unknown name or value is a 400.
//
//	error=STATUS            answer with this HTTP error (400 to 599) in Anthropic's shape
//	times=N                 … but only to the first N requests with this model and script
//	retry_after=SECONDS     … with a retry-after header
//	should_retry=true|false … with this x-should-retry in place of the usual one
//	body=html|empty         … with a body that is not JSON
//	stream_error=after:N    an `event: error` after N deltas, then the end of the stream
//	type=ERROR_TYPE         … of this type (default overloaded_error)
//	cut=after:N             drop the connection after N deltas
//	stall=after:N           silence after N deltas, until the client goes
//	output_tokens=N         generate exactly N tokens (still capped by max_tokens)
//	input_tokens=N          report N uncached input tokens
//	web_searches=N          how often a web_search tool is used (default 1)
//	delay_ms=N              wait between deltas, in place of Options.ChunkDelay
//	first_byte_ms=N         wait before the first byte
//	tool=NAME|none          use this tool, or none
//	input=JSON              … with this input; takes the rest of the marker
//	say=TEXT                answer with this text; takes the rest of the marker
//
// Deltas are content_block_delta events. If there are fewer than N, the fault
// comes before message_delta. Without streaming, stream_error does nothing, cut
// drops the connection in the middle of the body, stall sends nothing.
//
// # Oracle
//
//	GET  /__ledger    every answer that reported usage, see Entry
//	GET  /__requests  the last 1000 requests, see Request
//	POST /__reset     forgets both, the prompt cache and the counts of times=N
//
// These need no credential and are not recorded. The ledger holds the truth
// about a stream that ended early: the tokens that were generated and sent until
// then. A non-streaming request whose client goes before the first byte was
// never answered and is not in it.
package anthropic
