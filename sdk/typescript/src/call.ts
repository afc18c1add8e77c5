import { LLMProxyError, redact, refusal } from "./errors.js";

const firstPauseMs = 200;
const longestPauseMs = 5_000;

/** Said of an answer that LLM Proxy does not give. */
export const notOurs = "the answer is not LLM Proxy's; is its URL right?";

/** Where calls go, and how. */
export interface Connection {
  url: string;
  masterKey: string;
  fetch: typeof fetch;
  timeoutMs: number;
  maxRetries: number;
}

/** One call of the REST API. */
export interface Call {
  /** What is done, for errors: "issue a session key". */
  op: string;
  method: "GET" | "POST" | "PUT";
  path: string;
  query?: Record<string, string | undefined>;
  body?: unknown;
  /**
   * A repeat could do more than the first attempt did, so it is only sent again
   * when the proxy turned it away unread (429).
   */
  once?: boolean;
  /** Ends the call at any time, with its own reason. */
  signal?: AbortSignal | undefined;
}

/** Sends a call, again if that is safe and may help, and decodes its answer. */
export async function send<T>(to: Connection, call: Call): Promise<T> {
  const body = call.body === undefined ? undefined : JSON.stringify(call.body);
  for (let attempt = 0; ; attempt++) {
    call.signal?.throwIfAborted();
    const { answer, error, pauseMs } = await tryOnce<T>(to, call, body);
    if (!error) return answer;
    if (!error.retryable || attempt >= to.maxRetries || (call.once && error.status !== 429)) throw error;
    const most = Math.min(firstPauseMs * 2 ** attempt, longestPauseMs);
    await pause(Math.min(pauseMs ?? most * (0.5 + Math.random() / 2), longestPauseMs), call.signal);
  }
}

type Outcome<T> =
  | { answer: T; error?: undefined; pauseMs?: undefined }
  | { answer?: undefined; error: LLMProxyError; pauseMs?: number | undefined };

/** Sends a call once. Throws only when the caller's signal ends it. */
async function tryOnce<T>(to: Connection, call: Call, body: string | undefined): Promise<Outcome<T>> {
  const timeout = AbortSignal.timeout(to.timeoutMs);
  let response: Response, text: string;
  try {
    response = await to.fetch(to.url + call.path + search(call.query), {
      method: call.method,
      headers: { authorization: `Bearer ${to.masterKey}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body }),
      redirect: "manual", // the key goes to no other address
      signal: call.signal ? AbortSignal.any([call.signal, timeout]) : timeout,
    });
    text = await response.text();
  } catch (cause) {
    call.signal?.throwIfAborted();
    const why = timeout.aborted ? `no answer within ${to.timeoutMs} ms` : redact(reason(cause), to.masterKey);
    return { error: new LLMProxyError(`${call.op}: ${why}`, { retryable: true, cause }) };
  }
  if (!response.ok) {
    return { error: refusal(call.op, response, text, to.masterKey), pauseMs: retryAfterMs(response) };
  }
  try {
    return { answer: JSON.parse(text) as T };
  } catch {
    return { error: new LLMProxyError(`${call.op}: ${notOurs}`, { status: response.status }) };
  }
}

function search(query: Call["query"]): string {
  const given = Object.entries(query ?? {}).filter((e): e is [string, string] => e[1] !== undefined);
  return given.length ? "?" + new URLSearchParams(given) : "";
}

/** fetch says "fetch failed" and puts what happened into its cause. */
function reason(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure);
  return failure.cause instanceof Error ? failure.cause.message || String(failure.cause) : failure.message;
}

function retryAfterMs(response: Response): number | undefined {
  const text = response.headers.get("retry-after");
  return text !== null && /^\d+$/.test(text) ? Number(text) * 1_000 : undefined;
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
