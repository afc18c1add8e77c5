import { LLMProxyError } from "./errors.js";

/** What a client needs. Nothing set is direct mode. */
export interface Config {
  /** Where the proxy is reached, with or without /v1. Absent: direct mode. */
  url?: string | undefined;
  /** Where its administrators' routes are. Absent: url. */
  adminUrl?: string | undefined;
  /**
   * Where sandboxes reach the proxy. Absent: a session's environment is as the
   * proxy makes it, and everything else uses url.
   */
  publicUrl?: string | undefined;
  /**
   * A master key, or an admin token: one of scope issue may issue and revoke keys,
   * make teams and end sessions; one of scope read may list spend.
   */
  masterKey?: string | undefined;
  /** Life of keys that do not ask for one, such as "24h". Absent: the proxy's default. */
  keyDuration?: string | undefined;
  /** Makes everything fail without a url, so that no sandbox gets the real key. */
  required?: boolean;
  /** What sessions get in direct mode. */
  anthropicApiKey?: string | undefined;

  /** Sends the requests. Absent: the global fetch. */
  fetch?: typeof fetch;
  /** Bounds one attempt of a call, in milliseconds. Absent: 30,000. */
  timeoutMs?: number;
  /** How often a call that may be repeated is sent again. Absent: twice. */
  maxRetries?: number;
}

type Env = Record<string, string | undefined>;

/**
 * Reads LLM_PROXY_URL, LLM_PROXY_ADMIN_URL, LLM_PROXY_PUBLIC_URL,
 * LLM_PROXY_MASTER_KEY, LLM_PROXY_KEY_DURATION, LLM_PROXY_REQUIRED and
 * ANTHROPIC_API_KEY. Throws when LLM_PROXY_REQUIRED is neither true (1) nor false
 * (0, empty).
 */
export function configFromEnv(env: Env = globalThis.process?.env ?? {}): Config {
  const get = (name: string) => env[name]?.trim() || undefined;
  const required = get("LLM_PROXY_REQUIRED")?.toLowerCase() ?? "false";
  if (!["true", "1", "false", "0"].includes(required)) {
    throw new LLMProxyError("LLM_PROXY_REQUIRED is neither true nor false");
  }
  return {
    url: get("LLM_PROXY_URL"),
    adminUrl: get("LLM_PROXY_ADMIN_URL"),
    publicUrl: get("LLM_PROXY_PUBLIC_URL"),
    masterKey: get("LLM_PROXY_MASTER_KEY"),
    keyDuration: get("LLM_PROXY_KEY_DURATION"),
    required: required === "true" || required === "1",
    anthropicApiKey: get("ANTHROPIC_API_KEY"),
  };
}

/** A proxy's URLs without slashes and /v1 at their ends. */
export interface Urls {
  url: string | undefined;
  adminUrl: string | undefined;
  publicUrl: string | undefined;
}

/**
 * Brings the URLs into their plain form, or throws what is wrong with the
 * configuration. It names settings and shows no values.
 */
export function checkedUrls(config: Config): Urls {
  const urls = {
    url: rootUrl("LLM_PROXY_URL", config.url),
    adminUrl: rootUrl("LLM_PROXY_ADMIN_URL", config.adminUrl),
    publicUrl: rootUrl("LLM_PROXY_PUBLIC_URL", config.publicUrl),
  };
  if (!urls.url && config.required) {
    throw new LLMProxyError("LLM_PROXY_REQUIRED is true, but LLM_PROXY_URL is not set");
  }
  if (!urls.url && (urls.adminUrl || urls.publicUrl)) {
    throw new LLMProxyError("LLM_PROXY_ADMIN_URL or LLM_PROXY_PUBLIC_URL is set, but LLM_PROXY_URL is not");
  }
  if (!/^[!-~]*$/.test(config.masterKey ?? "")) {
    throw new LLMProxyError("LLM_PROXY_MASTER_KEY has characters that no header can carry");
  }
  return urls;
}

function rootUrl(name: string, text: string | undefined): string | undefined {
  if (!text) return undefined;
  if (!/^https?:\/\/[^/]/i.test(text) || !URL.canParse(text)) throw new LLMProxyError(`${name} is not an http or https URL`);
  const url = new URL(text);
  if (url.username || url.password) {
    throw new LLMProxyError(`${name} holds a user name or password; use LLM_PROXY_MASTER_KEY`);
  }
  if (/[?#]/.test(text)) throw new LLMProxyError(`${name} has a query or a fragment`);
  let root = trimSlashes(text);
  while (root.endsWith("/v1")) root = trimSlashes(root.slice(0, -"/v1".length));
  return root;
}

function trimSlashes(text: string): string {
  let end = text.length;
  while (text[end - 1] === "/") end--;
  return text.slice(0, end);
}
