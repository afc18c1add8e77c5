// The Vercel AI SDK with its Anthropic provider.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { APICallError, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
import { CLIENT, KEY, POOR_KEY, PROXY_URL, WRONG_KEY, failure, play, usual, words } from "./scenario.mjs";

const ask = ({ fetch, headers }, text, { model = "claude-haiku-4-5", apiKey = KEY, ...more } = {}) => ({
  model: createAnthropic({ baseURL: `${PROXY_URL}/v1`, apiKey, fetch, headers })(model),
  prompt: `${CLIENT}: ${text}`,
  maxOutputTokens: 2000,
  onError: () => {}, // streamText writes errors to the console otherwise
  ...more,
});

const note = (p, { response, usage }) =>
  p.answered(response.id, response.headers["request-id"], usage.inputTokens, usage.outputTokens);

// streamed reads a stream to its end, and notes every answer in it.
async function streamed(p, request) {
  const result = streamText(request);
  let text = "";
  for await (const piece of result.textStream) text += piece;
  for (const step of await result.steps) note(p, step);
  return text;
}

// balance is a tool that remembers what it was asked.
function balance() {
  const asked = [];
  const schema = { type: "object", properties: { team: { type: "string" } }, required: ["team"] };
  const execute = async (input) => {
    asked.push(input);
    return "12 credits";
  };
  return { asked, tools: { balance: tool({ description: "A balance", inputSchema: jsonSchema(schema), execute }) } };
}
const toolCall = `Balance? [[sim:tool=balance;input={"team":"acme – 世界"}]]`;

// rejected sends one request that is refused for good, and sent once.
async function rejected(p, status, type, request) {
  const error = await failure(generateText(request));
  assert.ok(APICallError.isInstance(error), error.stack);
  assert.deepEqual([error.statusCode, error.data.error.type], [status, type]);
  assert.ok(error.responseHeaders["request-id"]);
  assert.equal(p.sent.length, 1);
}

// broken reads a stream that does not end well, and returns how.
async function broken(p, script) {
  let text = "";
  let error;
  try {
    for await (const part of streamText(ask(p, `[[sim:${script};say=${words}]]`)).stream) {
      if (part.type === "text-delta") text += part.text;
      if (part.type === "error") error = part.error;
    }
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(text && text !== words && words.startsWith(text), text);
  assert.equal(p.sent.length, 1);
  assert.ok(error, "the stream ended as if it were whole");
  return error;
}

await play({
  async "a stream"(p) {
    assert.equal(await streamed(p, ask(p, `[[sim:say=${words}]]`)), words);
  },

  async "the order of a stream"(p) {
    const result = streamText(ask(p, `[[sim:say=${words}]]`));
    const seen = [];
    for await (const { type } of result.stream) {
      if (type !== seen.at(-1) && type !== "custom") seen.push(type); // custom: of this provider only
    }
    assert.deepEqual(seen, ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]);
    note(p, (await result.steps)[0]);
  },

  async "an answer in one piece"(p) {
    const result = await generateText(ask(p, `[[sim:say=${words}]]`));
    assert.equal(result.text, words);
    note(p, result);
  },

  async "a tool and its result"(p) {
    const { asked, tools } = balance();
    const result = await generateText(ask(p, toolCall, { tools, stopWhen: isStepCount(5) }));
    assert.deepEqual(asked, [{ team: "acme – 世界" }]);
    assert.equal(result.text, usual);
    for (const step of result.steps) note(p, step);
  },

  async "a tool and its result in streams"(p) {
    const { asked, tools } = balance();
    assert.equal(await streamed(p, ask(p, toolCall, { tools, stopWhen: isStepCount(5) })), usual);
    assert.deepEqual(asked, [{ team: "acme – 世界" }]);
  },

  async "thinking that goes back"(p) {
    const { tools } = balance();
    const providerOptions = { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } };
    const result = streamText(ask(p, toolCall, { tools, stopWhen: isStepCount(5), providerOptions }));
    await result.consumeStream();
    const [first, second] = await result.steps;
    assert.ok(first.reasoningText && second.reasoningText);
    note(p, first);
    note(p, second);
  },

  async "a request of 20 MB"(p) {
    const providerOptions = { anthropic: { metadata: { userId: "A".repeat(20 << 20) } } };
    assert.equal(await streamed(p, ask(p, `[[sim:say=${words}]]`, { providerOptions })), words);
  },

  async "twenty streams at once"(p) {
    await Promise.all(Array.from({ length: 20 }, async (_, n) => {
      assert.equal(await streamed(p, ask(p, `[[sim:delay_ms=5;say=${n}: ${words}]]`)), `${n}: ${words}`);
    }));
  },

  "a bad request": (p) => rejected(p, 400, "invalid_request_error", ask(p, "[[sim:error=400]]")),
  "a wrong key": (p) => rejected(p, 401, "authentication_error", ask(p, "Hi", { apiKey: WRONG_KEY })),
  "a budget that is used up": (p) => rejected(p, 402, "billing_error", ask(p, "Hi", { apiKey: POOR_KEY })),
  "an unknown model": (p) => rejected(p, 404, "not_found_error", ask(p, "Hi", { model: "no-such-model" })),

  async "a rate limit that passes"(p) {
    const begun = performance.now();
    const result = await generateText(ask(p, "[[sim:error=429;retry_after=3;times=1]]"));
    assert.ok(performance.now() - begun >= 3000, "retry-after did not arrive"); // told nothing, it waits for two
    assert.equal(result.text, usual);
    note(p, result);
  },

  async "an overload that passes"(p) {
    assert.equal(await streamed(p, ask(p, "[[sim:error=529;retry_after=1;times=2]]")), usual);
  },

  async "an error in the stream"(p) {
    const error = await broken(p, "stream_error=after:2");
    assert.match(JSON.stringify(error) + String(error), /overloaded/i);
  },

  async "a cut connection"(p) {
    await broken(p, "cut=after:2");
  },

  async "an abort"(p) {
    const leave = new AbortController();
    const request = ask(p, "[[sim:delay_ms=50;output_tokens=1000]]", { abortSignal: leave.signal });
    const seen = [];
    for await (const part of streamText(request).stream) {
      seen.push(part.type);
      if (part.type === "text-delta") leave.abort();
    }
    assert.equal(seen.at(-1), "abort");
  },
});
