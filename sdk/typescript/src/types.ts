import type { Key, Limits, SpendRow, Usage } from "./generated.js";

/** What every call takes. */
export interface CallOptions {
  /** Ends the call at any time, with the signal's own reason. */
  signal?: AbortSignal | undefined;
}

/** What a session's key may be given. What is absent is as the proxy is set up. */
export interface SessionKeyOptions extends CallOptions {
  /** Life of the key, such as "24h". Absent: LLM_PROXY_KEY_DURATION. */
  duration?: string;
  /** Most that the key may spend, in USD, at list price: 5, "0.25". At most 9 decimals. */
  maxBudget?: number | string;
  /** Returned unchanged with the key. */
  metadata?: Record<string, unknown>;
  /** Name of the team, used only when it is made. */
  orgAlias?: string;
  /** Names of models that the key may use. Absent: all. */
  models?: string[];
  /** Put on every request of the key. */
  tags?: string[];
  /** Further limits; maxBudget wins over theirs. */
  limits?: Limits;
  /**
   * Marks calls that are one: they get the same key, each with a fresh secret.
   * Absent: this call, with its retries, is one of its own.
   */
  idempotencyKey?: string;
}

/** What a sandbox needs. */
export interface SessionKey {
  /**
   * The plaintext. The proxy shows it only now. In direct mode it is the real key of
   * Anthropic.
   */
  key: string;
  /** False in direct mode. */
  proxied: boolean;
  /** About the key; undefined in direct mode. */
  info: Key | undefined;
  /** When the key stops working. Undefined: never. */
  expiresAt: Date | undefined;
  /**
   * The environment for the sandbox: ANTHROPIC_API_KEY and, with a proxy,
   * ANTHROPIC_BASE_URL, LLM_PROXY_API_KEY and LLM_PROXY_URL.
   */
  env: Record<string, string>;
  /** The content of an opencode.json. */
  opencodeConfig: OpencodeConfig;
}

/** The content of an opencode.json. */
export interface OpencodeConfig {
  $schema: string;
  model?: string;
  provider?: { anthropic: { options: { baseURL: string; apiKey: string } } };
}

/** The attributes of a team that is made. */
export interface TeamOptions extends CallOptions {
  /** Its name. */
  alias?: string;
  /** Most that its keys may spend together, in USD, at list price. At most 9 decimals. */
  maxBudget?: number | string;
  /** Further limits; maxBudget wins over theirs. */
  limits?: Limits;
  /** Names of models that its keys may use. Absent: all. */
  models?: string[];
  metadata?: Record<string, unknown>;
}

/** What to revoke: a key's plaintext ("sk-…"), its id ("key_…"), an alias, or one of these by name. */
export type RevokeTarget = string | { key: string } | { keyId: string } | { alias: string } | { sessionId: string };

/** What a session has cost when it was ended. */
export interface SessionCost {
  /** Keys that the session had. */
  keys: number;
  requests: number;
  /** In nano-dollars (1e-9 USD), at list price. */
  costNanoUsd: string;
  /** Requests that are not settled yet. Not zero: the cost is not final, ask again. */
  openRequests: number;
}

/** Selects rows of the ledger. What is absent does not filter. */
export interface SpendFilter extends CallOptions {
  orgId?: string;
  sessionId?: string;
  keyId?: string;
  requestId?: string;
  /** Rows that ended at or after this instant. */
  endedAfter?: Date;
  /** Rows that ended before this instant. */
  endedBefore?: Date;
  /** 1 to 1000. Absent: 100. */
  pageSize?: number;
  /** From the answer before. */
  pageToken?: string;
}

/**
 * One request on the ledger. Rows are never edited: a correction is a row of its
 * own, so the sum over all rows is what was spent.
 */
export type SpendLog = Required<Omit<SpendRow, "usage">> & { usage: Required<Usage> };

/** One page of rows, newest first. */
export interface SpendPage {
  rows: SpendLog[];
  /** For the page after this one. Undefined: this is the last one. */
  nextPageToken: string | undefined;
}
