// Anthropic's TypeScript SDK: node anthropic.mjs PACKAGE.
import assert from "node:assert/strict";
import { CLIENT, KEY, POOR_KEY, PROXY_URL, WRONG_KEY, failure, play, usual, words } from "./scenario.mjs";

const sdk = await import(process.argv[2]);
const old = process.argv[2] === "anthropic-0"; // the major before 1

const client = ({ fetch, headers }, options = {}) =>
  new sdk.Anthropic({ baseURL: PROXY_URL, apiKey: KEY, fetch, defaultHeaders: headers, logLevel: "off", ...options });

const ask = (text, more = {}) => ({
  model: "claude-haiku-4-5",
  max_tokens: 2000,
  messages: [{ role: "user", content: `${CLIENT}: ${text}` }],
  ...more,
});

const textOf = (message) => message.content.filter((b) => b.type === "text").map((b) => b.text).join("");

const note = (p, message, requestID = message._request_id) =>
  p.answered(message.id, requestID, message.usage.input_tokens, message.usage.output_tokens);

// streamed has the SDK assemble a stream, and notes the message.
async function streamed(p, anthropic, body) {
  const stream = anthropic.messages.stream(body);
  const message = await stream.finalMessage();
  note(p, message, stream.request_id);
  return message;
}

const balance = {
  name: "balance",
  description: "The balance of a team",
  input_schema: { type: "object", properties: { team: { type: "string" } }, required: ["team"] },
};
const toolCall = `Balance? [[sim:tool=balance;input={"team":"acme – 世界"}]]`;

// reply makes the next turn of a conversation out of a tool's call.
function reply(body, message) {
  assert.equal(message.stop_reason, "tool_use");
  const use = message.content.find((b) => b.type === "tool_use");
  assert.deepEqual([use.name, use.input], ["balance", { team: "acme – 世界" }]);
  return {
    ...body,
    messages: [
      ...body.messages,
      { role: "assistant", content: message.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "12 credits" }] },
    ],
  };
}

// runTool has the SDK's tool runner call the tool, and returns the last answer.
async function runTool(p, more) {
  const asked = [];
  const run = (input) => {
    asked.push(input);
    return "12 credits";
  };
  const tools = [{ ...balance, run, parse: (input) => input }];
  const last = await client(p).beta.messages.toolRunner(ask(toolCall, { tools, ...more }));
  assert.deepEqual(asked, [{ team: "acme – 世界" }]);
  assert.equal(textOf(last), usual);
  return last;
}

// The events of a text, deltas that follow each other taken as one.
const order = [
  "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
];

const answers = {
  async "a stream in raw events"(p) {
    const asked = client(p).messages.create(ask(`[[sim:say=${words}]]`, { stream: true }));
    const { data: events, request_id } = await asked.withResponse();
    const seen = [];
    let text = "";
    let start, end;
    for await (const event of events) {
      if (event.type !== seen.at(-1)) seen.push(event.type);
      if (event.type === "message_start") start = event.message;
      if (event.type === "message_delta") end = event;
      if (event.type === "content_block_delta") text += event.delta.text;
    }
    assert.deepEqual(seen, order);
    assert.equal(text, words);
    assert.equal(end.delta.stop_reason, "end_turn");
    p.answered(start.id, request_id, end.usage.input_tokens, end.usage.output_tokens);
  },

  async "a stream"(p) {
    const stream = client(p).messages.stream(ask(`[[sim:say=${words}]]`));
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const message = await stream.finalMessage();
    assert.equal(textOf(message), words);
    assert.equal(text, words);
    note(p, message, stream.request_id);
  },

  async "an answer in one piece"(p) {
    const message = await client(p).messages.create(ask(`[[sim:say=${words}]]`));
    assert.equal(textOf(message), words);
    assert.ok(message._request_id);
    note(p, message);
  },

  async "a tool and its result"(p) {
    const anthropic = client(p);
    const body = ask(toolCall, { tools: [balance] });
    const first = await anthropic.messages.create(body);
    note(p, first);
    const second = await anthropic.messages.create(reply(body, first));
    assert.equal(textOf(second), usual);
    note(p, second);
  },

  async "a tool and its result in streams"(p) {
    const anthropic = client(p);
    const body = ask(toolCall, { tools: [balance] });
    const first = await streamed(p, anthropic, body);
    assert.equal(textOf(await streamed(p, anthropic, reply(body, first))), usual);
  },

  async "the tool runner"(p) {
    note(p, await runTool(p, old ? {} : { thread: false }));
    assert.ok(p.sent.every(({ beta }) => !beta.includes("message-threads")));
  },

  async "the tool runner in a thread"(p) {
    note(p, await runTool(p));
    assert.equal(p.sent.filter(({ beta }) => beta.includes("message-threads")).length, 2);
  },

  async "thinking that goes back"(p) {
    const anthropic = client(p);
    const body = ask(toolCall, { tools: [balance], thinking: { type: "enabled", budget_tokens: 1024 } });
    const first = await streamed(p, anthropic, body);
    const thought = first.content.find((b) => b.type === "thinking");
    assert.ok(thought.thinking && thought.signature);
    const next = reply(body, first);
    assert.deepEqual(next.messages[1].content[0], thought);
    await streamed(p, anthropic, next);
  },

  async "a prompt from the cache"(p) {
    const anthropic = client(p);
    const text = `${CLIENT} keeps the books. `.repeat(200);
    const system = [
      { type: "text", text, cache_control: { type: "ephemeral", ttl: "1h" } },
      { type: "text", text, cache_control: { type: "ephemeral" } },
    ];
    const first = await anthropic.messages.create(ask("one", { system }));
    const second = await streamed(p, anthropic, ask("two", { system }));
    assert.ok(first.usage.cache_creation.ephemeral_5m_input_tokens > 0);
    assert.ok(first.usage.cache_creation.ephemeral_1h_input_tokens > 0);
    assert.equal(second.usage.cache_read_input_tokens, first.usage.cache_creation_input_tokens);
    note(p, first);
  },

  async "a beta"(p) {
    const body = ask(`[[sim:say=${words}]]`, { betas: ["one-2026-01-01", "unknown-2026-01-02"] });
    const message = await client(p).beta.messages.create(body);
    assert.equal(p.sent[0].beta, "one-2026-01-01,unknown-2026-01-02");
    assert.equal(p.sent[0].query, old ? "beta=true" : "");
    note(p, message);
  },

  async "a base URL that ends in v1"(p) {
    note(p, await client(p, { baseURL: `${PROXY_URL}/v1` }).messages.create(ask("once more")));
    assert.equal(p.sent[0].path, "/v1/v1/messages");
  },

  async "a request of 20 MB"(p) {
    // In a field that the simulator skips: its parsing of an image of this size
    // takes seconds under the race detector, and to the proxy a body is bytes.
    const metadata = { user_id: "A".repeat(20 << 20) };
    const message = await client(p).messages.create(ask(`[[sim:say=${words}]]`, { metadata }));
    assert.equal(textOf(message), words);
    note(p, message);
  },

  async "twenty streams at once"(p) {
    const anthropic = client(p);
    await Promise.all(Array.from({ length: 20 }, async (_, n) => {
      const message = await streamed(p, anthropic, ask(`[[sim:delay_ms=5;say=${n}: ${words}]]`));
      assert.equal(textOf(message), `${n}: ${words}`);
    }));
  },

  async "counted tokens"(p) {
    const anthropic = client(p);
    const { max_tokens, ...body } = ask("How long is this?", { tools: [balance], tool_choice: { type: "none" } });
    const count = await anthropic.messages.countTokens(body);
    const message = await anthropic.messages.create({ ...body, max_tokens });
    assert.equal(count.input_tokens, message.usage.input_tokens);
    note(p, message);
  },

  async "the list of models"(p) {
    const ids = [];
    for await (const model of client(p).models.list({ limit: 5 })) ids.push(model.id);
    assert.ok(ids.includes("claude-haiku-4-5"), ids.join());
    assert.equal(new Set(ids).size, ids.length);
  },

  async "one model"(p) {
    const model = await client(p).models.retrieve("claude-haiku-4-5");
    assert.deepEqual([model.type, model.id], ["model", "claude-haiku-4-5"]);
    const error = await failure(client(p).models.retrieve("no-such-model"));
    assert.ok(error instanceof sdk.NotFoundError, error.stack);
  },

  async "a thread that the server holds"(p) {
    const thread = client(p).beta.messages.thread({ model: "claude-haiku-4-5", max_tokens: 2000 });
    const first = await thread.send({ role: "user", content: `${CLIENT}: my name is Ada` });
    const second = await thread.send({ role: "user", content: `[[sim:say=${words}]]` });
    assert.equal(textOf(second), words);
    assert.equal(thread.messages.length, 4);
    assert.equal(thread.previousMessageId, second.id);
    note(p, first);
    note(p, second);
  },
};

// rejected sends one request that is refused for good, and sent once.
async function rejected(p, kind, status, type, options, body) {
  const error = await failure(client(p, options).messages.create(body));
  assert.ok(error instanceof sdk[kind], error.stack);
  assert.deepEqual([error.status, error.error.error.type], [status, type]);
  assert.ok(error.requestID);
  assert.equal(p.sent.length, 1);
}

// broken reads a stream that does not end well, and returns how.
async function broken(p, script) {
  const events = await client(p).messages.create(ask(`[[sim:${script};say=${words}]]`, { stream: true }));
  let text = "";
  const error = await failure((async () => {
    for await (const event of events) if (event.type === "content_block_delta") text += event.delta.text;
  })());
  assert.ok(text && text !== words && words.startsWith(text), text);
  assert.equal(p.sent.length, 1);
  return error;
}

const faults = {
  "a bad request": (p) =>
    rejected(p, "BadRequestError", 400, "invalid_request_error", {}, ask("", { messages: [] })),
  "a wrong key": (p) =>
    rejected(p, "AuthenticationError", 401, "authentication_error", { apiKey: WRONG_KEY }, ask("Hi")),
  "a budget that is used up": (p) => rejected(p, "APIError", 402, "billing_error", { apiKey: POOR_KEY }, ask("Hi")),
  "an unknown model": (p) =>
    rejected(p, "NotFoundError", 404, "not_found_error", {}, ask("Hi", { model: "no-such-model" })),

  async "a rate limit that passes"(p) {
    const begun = performance.now();
    const message = await client(p).messages.create(ask("[[sim:error=429;retry_after=2;times=1]]"));
    assert.ok(performance.now() - begun >= 2000, "retry-after did not arrive"); // told nothing, it waits for half of one
    assert.equal(textOf(message), usual);
    note(p, message);
  },

  async "an overload that passes"(p) {
    assert.equal(textOf(await streamed(p, client(p), ask("[[sim:error=529;times=2]]"))), usual);
  },

  async "an error in the stream"(p) {
    const error = await broken(p, "stream_error=after:2");
    assert.ok(error instanceof sdk.APIError, error.stack);
    assert.equal(error.error.error.type, "overloaded_error");
  },

  async "a cut connection"(p) {
    await broken(p, "cut=after:2");
  },

  async "an abort"(p) {
    const leave = new AbortController();
    const stream = client(p).messages.stream(ask("[[sim:delay_ms=50;output_tokens=1000]]"), { signal: leave.signal });
    stream.on("text", () => leave.abort());
    const error = await failure(stream.finalMessage());
    assert.ok(error instanceof sdk.APIUserAbortError, error.stack);
  },
};

await play({ ...answers, ...faults });
