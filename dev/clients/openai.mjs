// OpenAI's TypeScript SDK: chat completions and responses.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { CLIENT, KEY, POOR_KEY, PROXY_URL, WRONG_KEY, failure, play, usual, words } from "./scenario.mjs";

const client = ({ fetch, headers }, options = {}) =>
  new OpenAI({ baseURL: `${PROXY_URL}/v1`, apiKey: KEY, fetch, defaultHeaders: headers, logLevel: "off", ...options });

const chat = (text, more = {}) => ({
  model: "gpt-5-mini",
  messages: [{ role: "user", content: `${CLIENT}: ${text}` }],
  ...more,
});

const respond = (text, more = {}) => ({ model: "gpt-5-mini", input: `${CLIENT}: ${text}`, ...more });

// The ledger keeps cached input apart, which OpenAI counts as input.
const fresh = (tokens, { cached_tokens = 0, cache_write_tokens = 0 }) => tokens - cached_tokens - cache_write_tokens;

const noteChat = (p, { id, usage, _request_id }) =>
  p.answered(id, _request_id, fresh(usage.prompt_tokens, usage.prompt_tokens_details), usage.completion_tokens);

const noteResponse = (p, { id, usage, _request_id = "-" }) => // its streams do not tell it
  p.answered(id, _request_id, fresh(usage.input_tokens, usage.input_tokens_details), usage.output_tokens);

// collect reads a stream of chunks to its end: its text, its calls' arguments,
// its usage, and whether a chunk was without a choice, as the one with usage is.
async function collect(asked, seen = { text: "", input: "" }) {
  const { data: stream, request_id } = await asked.withResponse();
  seen._request_id = request_id;
  for await (const chunk of stream) {
    seen.id = chunk.id;
    if (chunk.usage) seen.usage = chunk.usage;
    for (const { delta, finish_reason } of chunk.choices) {
      seen.text += delta.content ?? "";
      for (const call of delta.tool_calls ?? []) {
        seen.call ??= call;
        seen.input += call.function.arguments ?? "";
      }
      seen.reason = finish_reason ?? seen.reason;
    }
    if (chunk.choices.length === 0) seen.withoutChoices = true;
  }
  return seen;
}

const withUsage = { stream: true, stream_options: { include_usage: true } };
const schema = { type: "object", properties: { team: { type: "string" } }, required: ["team"] };
const chatTools = [{ type: "function", function: { name: "balance", parameters: schema } }];
const responseTools = [{ type: "function", name: "balance", parameters: schema, strict: false }];
const wanted = { team: "acme – 世界" };
const toolCall = `Balance? [[sim:tool=balance;input=${JSON.stringify(wanted)}]]`;

const answers = {
  async "a chat stream"(p) {
    const seen = await collect(client(p).chat.completions.create(chat(`[[sim:say=${words}]]`, withUsage)));
    assert.deepEqual([seen.text, seen.reason], [words, "stop"]);
    noteChat(p, seen);
  },

  async "a chat stream that asks for no usage"(p) {
    const seen = await collect(client(p).chat.completions.create(chat(`[[sim:say=${words}]]`, { stream: true })));
    assert.deepEqual([seen.text, seen.reason], [words, "stop"]);
    assert.ok(!seen.usage && !seen.withoutChoices, "a chunk speaks of usage");
    p.answered(seen.id, seen._request_id, -1, -1);
  },

  async "a chat answer in one piece"(p) {
    const completion = await client(p).chat.completions.create(chat(`[[sim:say=${words}]]`));
    assert.equal(completion.choices[0].message.content, words);
    assert.ok(completion._request_id);
    noteChat(p, completion);
  },

  async "a chat's tool and its result"(p) {
    const openai = client(p);
    const body = chat(toolCall, { tools: chatTools });
    const first = await openai.chat.completions.create(body);
    noteChat(p, first);
    const { message } = first.choices[0];
    const [call] = message.tool_calls;
    assert.deepEqual(JSON.parse(call.function.arguments), wanted);
    const result = { role: "tool", tool_call_id: call.id, content: "12 credits" };
    const second = await openai.chat.completions.create({ ...body, messages: [...body.messages, message, result] });
    assert.equal(second.choices[0].message.content, usual);
    noteChat(p, second);
  },

  async "a chat's tool in a stream"(p) {
    const seen = await collect(client(p).chat.completions.create(chat(toolCall, { ...withUsage, tools: chatTools })));
    assert.equal(seen.call.function.name, "balance");
    assert.deepEqual([JSON.parse(seen.input), seen.reason], [wanted, "tool_calls"]);
    noteChat(p, seen);
  },

  async "a response in a stream"(p) {
    const stream = client(p).responses.stream(respond(`[[sim:say=${words}]]`));
    let text = "";
    const numbers = [];
    stream.on("event", (event) => numbers.push(event.sequence_number));
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const response = await stream.finalResponse();
    assert.deepEqual([text, response.output_text, response.status], [words, words, "completed"]);
    assert.deepEqual(numbers, numbers.map((_, n) => n));
    noteResponse(p, response);
  },

  async "a response in one piece"(p) {
    const response = await client(p).responses.create(respond(`[[sim:say=${words}]]`));
    assert.equal(response.output_text, words);
    assert.ok(response._request_id);
    noteResponse(p, response);
  },

  async "a response's tool and its result"(p) {
    const openai = client(p);
    const first = await openai.responses.create(respond(toolCall, { tools: responseTools }));
    noteResponse(p, first);
    const call = first.output.find(({ type }) => type === "function_call");
    assert.deepEqual(JSON.parse(call.arguments), wanted);
    const second = await openai.responses.create({
      model: "gpt-5-mini",
      previous_response_id: first.id,
      tools: responseTools,
      input: [{ type: "function_call_output", call_id: call.call_id, output: "12 credits" }],
    });
    assert.equal(second.output_text, usual);
    noteResponse(p, second);
  },

  async "a request of 20 MB"(p) {
    const completion = await client(p).chat.completions.create(
      chat(`[[sim:say=${words}]]`, { metadata: { note: "A".repeat(20 << 20) } }),
    );
    assert.equal(completion.choices[0].message.content, words);
    noteChat(p, completion);
  },

  async "twenty streams at once"(p) {
    const openai = client(p);
    await Promise.all(Array.from({ length: 20 }, async (_, n) => {
      const text = `${n}: ${words}`;
      const seen = await collect(openai.chat.completions.create(chat(`[[sim:delay_ms=5;say=${text}]]`, withUsage)));
      assert.equal(seen.text, text);
      noteChat(p, seen);
    }));
  },

  async "the list of models"(p) {
    const ids = [];
    for await (const model of client(p).models.list()) ids.push(model.id);
    assert.ok(ids.includes("gpt-5-mini"), ids.join());
  },

  async "one model"(p) {
    const model = await client(p).models.retrieve("gpt-5-mini");
    assert.deepEqual([model.object, model.id], ["model", "gpt-5-mini"]);
    const error = await failure(client(p).models.retrieve("no-such-model"));
    assert.ok(error instanceof OpenAI.NotFoundError, error.stack);
  },
};

// rejected sends one request to both APIs that is refused for good, and sent once.
async function rejected(p, kind, status, options, text, more) {
  const openai = client(p, options);
  for (const ask of [
    () => openai.chat.completions.create(chat(text, more)),
    () => openai.responses.create(respond(text, more)),
  ]) {
    const error = await failure(ask());
    assert.ok(error instanceof OpenAI[kind], error.stack);
    assert.equal(error.status, status);
    assert.ok(error.message && error.requestID);
  }
  assert.equal(p.sent.length, 2);
}

const unfinished = (text) => assert.ok(text && text !== words && words.startsWith(text), text);

// brokenChat reads a stream that does not end well, and returns how.
async function brokenChat(p, script) {
  const stream = client(p).chat.completions.create(chat(`[[sim:${script};say=${words}]]`, { stream: true }));
  const seen = { text: "", input: "" };
  const error = await failure(collect(stream, seen));
  unfinished(seen.text);
  assert.equal(p.sent.length, 1);
  return error;
}

async function brokenResponse(p, script) {
  const stream = await client(p).responses.create(respond(`[[sim:${script};say=${words}]]`, { stream: true }));
  let text = "";
  const error = await failure((async () => {
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.type === "error" || event.type === "response.failed") throw event;
    }
  })());
  unfinished(text);
  assert.equal(p.sent.length, 1);
  return error;
}

const faults = {
  "a bad request": (p) => rejected(p, "BadRequestError", 400, {}, "[[sim:error=400]]"),
  "a wrong key": (p) => rejected(p, "AuthenticationError", 401, { apiKey: WRONG_KEY }, "Hi"),
  "a budget that is used up": (p) => rejected(p, "APIError", 402, { apiKey: POOR_KEY }, "Hi"),
  "an unknown model": (p) => rejected(p, "NotFoundError", 404, {}, "Hi", { model: "no-such-model" }),

  async "a rate limit that passes"(p) {
    const begun = performance.now();
    const completion = await client(p).chat.completions.create(chat("[[sim:error=429;retry_after=2;times=1]]"));
    assert.ok(performance.now() - begun >= 2000, "retry-after did not arrive"); // told nothing, it waits for half of one
    assert.equal(completion.choices[0].message.content, usual);
    noteChat(p, completion);
  },

  async "an overload that passes"(p) {
    const response = await client(p).responses.stream(respond("[[sim:error=503;times=2]]")).finalResponse();
    assert.equal(response.output_text, usual);
    noteResponse(p, response);
  },

  async "an error in a chat stream"(p) {
    const error = await brokenChat(p, "stream_error=after:2");
    assert.ok(error instanceof OpenAI.APIError, error.stack);
  },

  async "an error in a response's stream"(p) {
    await brokenResponse(p, "stream_error=after:2");
  },

  async "a response that fails"(p) {
    const event = await brokenResponse(p, "fail=after:2");
    assert.equal(event.type, "response.failed");
  },

  async "a cut chat"(p) {
    await brokenChat(p, "cut=after:2");
  },

  async "a cut response"(p) {
    await brokenResponse(p, "cut=after:2");
  },

  async "an abort of a chat"(p) {
    const leave = new AbortController();
    const body = chat("[[sim:delay_ms=50;output_tokens=1000]]", { stream: true });
    const stream = client(p).chat.completions.stream(body, { signal: leave.signal });
    stream.on("content", () => leave.abort());
    const error = await failure(stream.finalMessage());
    assert.ok(error instanceof OpenAI.APIUserAbortError, error.stack);
  },

  async "an abort of a response"(p) {
    const leave = new AbortController();
    const body = respond("[[sim:delay_ms=50;output_tokens=1000]]");
    const stream = client(p).responses.stream(body, { signal: leave.signal });
    stream.on("response.output_text.delta", () => leave.abort());
    const error = await failure(stream.finalResponse());
    assert.ok(error instanceof OpenAI.APIUserAbortError, error.stack);
  },
};

await play({ ...answers, ...faults });
