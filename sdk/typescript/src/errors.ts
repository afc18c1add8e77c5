const hidden = "[secret]";

/** Takes credentials out of a text that another side wrote. */
export function redact(text: string, ...secrets: string[]): string {
  for (const secret of secrets) if (secret) text = text.replaceAll(secret, hidden);
  return text.replace(/\bsk-[A-Za-z0-9_-]{8,}/g, hidden);
}

/** What is known of a failure besides its text. */
export interface FailureDetails {
  status?: number | undefined;
  retryable?: boolean;
  cause?: unknown;
}

/** A call that failed, or a configuration that is wrong. Its text holds no secret. */
export class LLMProxyError extends Error {
  override readonly name = "LLMProxyError";
  /** The proxy's HTTP status. Undefined: no answer arrived, or none was asked for. */
  readonly status: number | undefined;
  /**
   * Whether the same call may succeed later. Such calls were repeated already, as
   * far as that is safe.
   */
  readonly retryable: boolean;

  constructor(message: string, details: FailureDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.status = details.status;
    this.retryable = details.retryable ?? false;
  }
}

const passing = new Set([408, 429, 502, 503, 504]);
const aborted = 10; // gRPC's code of what changed meanwhile and may be tried again

/**
 * Makes an error of an answer that is not 2xx. Its body is ours ({"code",
 * "message"}) or LiteLLM's ({"error": {"message"}}).
 */
export function refusal(op: string, response: Response, body: string, secret: string): LLMProxyError {
  const status = response.status;
  let doc: { code?: unknown; message?: unknown; error?: { message?: unknown } | null } | null = null;
  try {
    doc = JSON.parse(body);
  } catch {
    // It comes from something in between.
  }
  const text = [doc?.message, doc?.error?.message].find((m) => typeof m === "string" && m !== "");
  const told = response.headers.get("x-should-retry");
  const retryable = told === "true" || (told !== "false" && (passing.has(status) || (status === 409 && doc?.code === aborted)));
  const message = text === undefined ? response.statusText.toLowerCase() || "no reason is given" : redact(String(text), secret);
  return new LLMProxyError(`${op}: HTTP ${status}: ${message}`, { status, retryable });
}
