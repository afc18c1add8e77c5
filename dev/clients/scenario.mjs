// What the scripts of this folder share. A script plays scenarios, each with a
// client of its own, and prints a line of JSON for each: its name, whether all
// went as expected, and what was sent and answered, for dev/clients_test.go to
// compare with what the simulator and the ledger have.
import { createHash } from "node:crypto";

// Where the test has put the proxy, without /v1, and what it gave the client.
export const { CLIENT, PROXY_URL, KEY, POOR_KEY, WRONG_KEY } = process.env;

// words are what the simulator is asked to say: several pieces, and characters
// of two, three and four bytes in them.
export const words = "Grüße aus der 世界 🌍: each of these tokens was counted, and none of them was lost.";

// usual is what it says unasked.
export const usual = "This is a simulated answer. Every token of it was counted, and none of it was meant.";

// longest is how long one scenario may take, in milliseconds.
const longest = 60_000;

// Play is one scenario as it runs.
class Play {
  sent = [];
  answers = [];

  constructor(name) {
    this.name = name;
    this.headers = { "x-scenario": `${CLIENT}/${name}` };
    this.fetch = this.fetch.bind(this);
  }

  // fetch is what clients are given in place of the usual one, to note what they
  // send.
  async fetch(url, init = {}) {
    const { pathname, search } = new URL(url);
    const body = init.body ?? "";
    const headers = new Headers(init.headers);
    this.sent.push({
      method: init.method ?? "GET",
      path: pathname,
      query: search.slice(1),
      body_sha256: createHash("sha256").update(body).digest("hex"),
      version: headers.get("anthropic-version") ?? "",
      beta: headers.get("anthropic-beta") ?? "",
    });
    return fetch(url, init);
  }

  // answered notes an answer that arrived whole: its id, the upstream's request
  // id, or "-" if the client does not tell it, and its tokens, or -1.
  answered(id, requestID, inputTokens, outputTokens) {
    this.answers.push({ id, request_id: requestID ?? "", input_tokens: inputTokens, output_tokens: outputTokens });
  }
}

// play runs the scenarios that the test names in SCENARIOS, all at once. They are
// functions by name that take a Play; some await a route and are not named.
export async function play(scenarios) {
  const wanted = JSON.parse(process.env.SCENARIOS).filter((name) => scenarios[name]);
  await Promise.all(wanted.map((name) => playOne(new Play(name), scenarios[name])));
  process.exit(0); // whatever connection a scenario has left open
}

async function playOne(play, act) {
  let detail = "";
  try {
    await Promise.race([act(play), tooLong()]);
  } catch (error) {
    detail = error?.stack ?? String(error);
  }
  const { name, sent, answers } = play;
  process.stdout.write(`${JSON.stringify({ name, ok: detail === "", detail, sent, answers })}\n`);
}

function tooLong() {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no end after ${longest} ms`)), longest).unref();
  });
}

// failure returns what a promise is rejected with.
export async function failure(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`no error, but ${JSON.stringify(value)}`);
}
