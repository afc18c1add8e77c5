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
// Everything else is a 404 in Anthropic's error shape; outside /v1/ it needs no
// credential. The credential is in x-api-key or in Authorization: Bearer, never
// in both; "sk-" text in any header that is no accepted key is refused, because
// it would be a leaked virtual key.
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
// # Threads
//
// With anthropic-beta: message-threads-2026-08-12 (without it the field is
// unknown, a 400) "thread":{"type":"create"} makes the server hold the
// conversation, the answer included, under the answer's id: for the credential
// that asked, for five minutes, and only if the answer ended well. A request with
// {"type":"continue","previous_message_id":ID} brings only its new messages;
// tools and system are those of the thread, and every token of the whole
// conversation counts, in /v1/messages as in count_tokens. An id that this
// credential does not have is a 404 not_found_error with the error_code
// thread_not_found, upon which the SDKs send the conversation anew; another model
// is a 400. Unlike with the real API, an id can be continued more than once.
//
// # Scripts
//
// A request chooses its own fate by markers in the text of its last user
// message, [[sim:NAME=VALUE;NAME=VALUE]], or by the header x-sim-script:
// NAME=VALUE;NAME=VALUE. Scripts without the marker can also be given to the
// server as Options.Script or by SetScript, which makes a whole upstream sick and
// heals it, and to a model by Options.Models. What is named twice is taken from
// the message, else from the header, the model, the server. An unknown name or
// value is a 400.
//
// Routes that take no message obey what the server and the header say of what
// comes before the first byte.
//
//	error=STATUS            answer with this HTTP error (400 to 599) in Anthropic's shape
//	retry_after=SECONDS     … with a retry-after header
//	should_retry=true|false … with this x-should-retry in place of the usual one
//	body=html|empty         … with a body that is not JSON
//	close=before_headers    read the request, then drop the connection without a byte
//	stream_error=after:N    an `event: error` after N deltas, then the end of the stream
//	type=ERROR_TYPE         … of this type (default overloaded_error)
//	cut=after:N             drop the connection after N deltas
//	stall=after:N           silence after N deltas, until the client goes
//	stall_pings=after:N     nothing but a ping every 20 ms after N deltas, until the client goes
//	stall_pings_ms=N        … but for N ms at most; then the stream goes on
//	malformed=after:N       after N deltas odd events that a client must bear: data that is
//	                        no JSON, an unknown event, a comment, CRLF, two data lines, an
//	                        unknown field, id and retry; then the stream goes on
//	encoding=gzip|br        the answer in this encoding, whatever the client accepts, each
//	                        event decodable on arrival; br is a label on opaque bytes
//	huge=BYTES              one delta of so much text before the rest of the text
//	trickle=BYTES           the stream in pieces of so many bytes, each flushed
//	times=N                 all of the above only for the first N requests, see below
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
// comes before message_delta. Without streaming, stream_error, malformed and
// trickle do nothing, cut drops the connection in the middle of the body, stall
// and stall_pings send nothing.
//
// times=N ends only the faults that were given with it. In a message or a header
// it counts the requests with this model, header and text; in a model's script
// those for the model; in the server's all, from SetScript on.
//
// A huge delta comes on top of output_tokens. It counts a quarter of its bytes,
// like any text, but no more than max_tokens leaves.
//
// # Oracle
//
//	GET  /__ledger    every answer that reported usage, see Entry
//	GET  /__requests  the last 1000 requests, see Request
//	POST /__reset     forgets both, the prompt cache, the threads and the counts of times=N
//
// These need no credential and are not recorded. The ledger holds the truth
// about a stream that ended early: the tokens that were generated and sent until
// then. A non-streaming request whose client goes before the first byte was
// never answered and is not in it.
package anthropic
