// Package openai is a stand-in for OpenAI's API, faithful enough for the
// official SDKs and for coding agents, with faults on request and with an oracle
// that says what was really served. It calls no one and generates no language:
// answers are fixed text of a known number of tokens.
//
// # What it serves
//
//	POST /v1/chat/completions        streaming or not, tools, n, stream_options
//	POST /v1/responses               streaming or not, tools, previous_response_id
//	GET  /v1/models, /v1/models/ID
//
// Everything else is a 404 in OpenAI's error shape. One credential is accepted,
// in Authorization: Bearer only; any other "sk-" text in any header is refused,
// because it would be a leaked virtual key. Tools are called only if their type
// is "function", once per turn: what follows a tool's result is text.
//
// Responses are kept unless store is false, for the credential that made them.
// Their items may be named by item_reference.
//
// # Tokens
//
// Counts depend only on the request: a prompt is rendered as text, and four bytes
// are a token; an image is 765. Reasoning models spend 16 tokens on reasoning
// before they say anything, unless the effort is "none". The prompt cache works
// by itself: the blocks of 32 tokens that the same credential and model sent
// before as the beginning of a prompt are reported as cached. gpt-6-sol also
// reports the other whole blocks as written; a prompt's cached and written tokens
// are part of its total, as at the real API. Nothing expires.
//
// # Scripts
//
// A request chooses its own fate by markers in the text of its last user
// message, [[sim:NAME=VALUE;NAME=VALUE]], or by the header x-sim-script:
// NAME=VALUE;NAME=VALUE, and Options.Script is for all. What is named twice is
// taken from the message, then from the header. A user message that is followed
// by a tool's result is no script any more. An unknown name or value is a 400.
//
//	error=STATUS            answer with this HTTP error (400 to 599) in OpenAI's shape
//	times=N                 … but only to the first N requests with this model and script
//	retry_after=SECONDS     … with retry-after and retry-after-ms headers
//	should_retry=true|false … with this x-should-retry header, which is not sent otherwise
//	body=html|empty         … with a body that is not JSON
//	stream_error=after:N    an error in the stream after N deltas, then its end
//	fail=after:N            the same, but Responses end with response.failed
//	type=TYPE, code=CODE    … these errors say this in place of the usual
//	cut=after:N             drop the connection after N deltas
//	stall=after:N           silence after N deltas, until the client goes
//	output_tokens=N         generate exactly N tokens, reasoning included, for each choice
//	reasoning_tokens=N      … of which N for reasoning, whatever the model
//	input_tokens=N          report a prompt of N tokens
//	cached_tokens=N         … of which N cached
//	delay_ms=N              wait between deltas, in place of Options.ChunkDelay
//	first_byte_ms=N         wait before the first byte
//	encoding=gzip           compress the answer, whatever the client accepts
//	tool=NAME|none          use this tool, or none
//	input=JSON              … with these arguments; takes the rest of the marker
//	say=TEXT                answer with this text; takes the rest of the marker
//
// Deltas are chunks with content or arguments, and response.output_text.delta
// and response.function_call_arguments.delta events. If there are fewer than N,
// the fault comes before the end. Without streaming, stream_error and fail do
// nothing, cut drops the connection in the middle of the body, stall sends
// nothing.
//
// # Oracle
//
//	GET  /__ledger    every answer that was begun, see Entry
//	GET  /__requests  the last 1000 requests, see Request
//	POST /__reset     forgets both, the prompt cache, the stored responses and the counts of times=N
//
// These need no credential and are not recorded. The ledger holds the truth
// about an answer that ended early or whose usage was not reported: the tokens
// that were generated until then. A non-streaming request whose client goes
// before the first byte was never answered and is not in it.
package openai
