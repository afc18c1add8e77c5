import { notOurs, send, type Call, type Connection } from "./call.js";
import { checkedUrls, configFromEnv, type Config, type Urls } from "./config.js";
import { LLMProxyError } from "./errors.js";
import type {
  EndSessionResponse, EnsureTeamBody, EnsureTeamResponse, IssueSessionKeyBody, IssueSessionKeyResponse, Key,
  ListSpendResponse, RevokeKeysRequest, RevokeKeysResponse, Team,
} from "./generated.js";
import { nanoUsd } from "./money.js";
import type {
  CallOptions, OpencodeConfig, RevokeTarget, SessionCost, SessionKey, SessionKeyOptions, SpendFilter, SpendLog, SpendPage,
  TeamOptions,
} from "./types.js";

/** Calls one proxy. It never changes. */
export class LLMProxy {
  readonly #config: Config;
  readonly #urls: Urls;

  /**
   * Calls nobody; throws when the configuration is wrong, or when a proxy is
   * required and there is none.
   */
  constructor(config: Config = configFromEnv()) {
    this.#config = { ...config };
    this.#urls = checkedUrls(config);
  }

  /** Whether there is a proxy. If not, the client is in direct mode. */
  isLLMProxyEnabled(): boolean {
    return this.#urls.url !== undefined;
  }

  /**
   * Where sandboxes reach the proxy, without /v1: what Anthropic's own clients take
   * as ANTHROPIC_BASE_URL. Undefined in direct mode.
   */
  getLLMProxyURL(): string | undefined {
    return this.#urls.publicUrl ?? this.#urls.url;
  }

  /**
   * The same with exactly one /v1: what OpenCode, the AI SDK and OpenAI's clients
   * take as their base URL. Undefined in direct mode.
   */
  getLLMProxyBaseURL(): string | undefined {
    const url = this.getLLMProxyURL();
    return url && `${url}/v1`;
  }

  /**
   * The content of an opencode.json that uses the key. In direct mode the key is
   * not used: OpenCode finds ANTHROPIC_API_KEY by itself. model becomes OpenCode's,
   * such as "anthropic/claude-sonnet-4-5".
   */
  getOpencodeConfig(key?: string, { model }: { model?: string } = {}): OpencodeConfig {
    const config: OpencodeConfig = { $schema: "https://opencode.ai/config.json", ...(model ? { model } : {}) };
    const baseURL = this.getLLMProxyBaseURL();
    if (!baseURL) return config;
    if (!key) throw new LLMProxyError("make an OpenCode configuration: the key is missing");
    return { ...config, provider: { anthropic: { options: { baseURL, apiKey: key } } } };
  }

  /**
   * Gives a session its key and ends the keys that it had. The organisation's team
   * is made when it is unknown. In direct mode the answer is the real key of
   * Anthropic, and nobody is called.
   */
  async generateSessionAPIKey(sessionId: string, orgId: string, options: SessionKeyOptions = {}): Promise<SessionKey> {
    const op = "issue a session key";
    const path = `/v1/sessions/${segment(op, "session id", sessionId)}/key`;
    if (!orgId) throw new LLMProxyError(`${op}: the organisation's id is empty`);
    if (!this.isLLMProxyEnabled()) return this.#direct(op);
    const body: IssueSessionKeyBody = {
      team_id: orgId,
      limits: limitsOf(options),
      idempotency_key: options.idempotencyKey ?? crypto.randomUUID(),
      ...given("team_alias", options.orgAlias),
      ...given("duration", options.duration ?? this.#config.keyDuration),
      ...given("models", options.models),
      ...given("tags", options.tags),
      ...given("metadata", options.metadata),
    };
    const answer = await this.#call<IssueSessionKeyResponse>({ op, method: "POST", path, body, signal: options.signal });
    return this.#sessionKey(op, answer);
  }

  #sessionKey(op: string, answer: IssueSessionKeyResponse): SessionKey {
    const { secret, key, env, opencode_config: opencode } = answer;
    if (!secret || !key || !env || !opencode) throw new LLMProxyError(`${op}: ${notOurs}`);
    const url = this.#urls.publicUrl; // it wins over what the proxy was told itself
    return {
      key: secret,
      proxied: true,
      info: key,
      expiresAt: key.expires_at ? new Date(key.expires_at) : undefined,
      env: url ? { ...env, ANTHROPIC_BASE_URL: url, LLM_PROXY_URL: url } : env,
      opencodeConfig: url ? this.getOpencodeConfig(secret) : (opencode as unknown as OpencodeConfig),
    };
  }

  #direct(op: string): SessionKey {
    const key = this.#config.anthropicApiKey;
    if (!key) throw new LLMProxyError(`${op}: neither LLM_PROXY_URL nor ANTHROPIC_API_KEY is set`);
    const env = { ANTHROPIC_API_KEY: key };
    return { key, proxied: false, info: undefined, expiresAt: undefined, env, opencodeConfig: this.getOpencodeConfig() };
  }

  /**
   * Makes the organisation's team when it is unknown; one that exists stays as it
   * is. In direct mode there are no teams, and nothing is done.
   */
  async ensureTeamExists(orgId: string, options: TeamOptions = {}): Promise<{ team: Team; created: boolean } | undefined> {
    const op = "ensure a team";
    const path = `/v1/teams/${segment(op, "organisation's id", orgId)}`;
    if (!this.isLLMProxyEnabled()) return undefined;
    const body: EnsureTeamBody = {
      limits: limitsOf(options),
      ...given("team_alias", options.alias),
      ...given("models", options.models),
      ...given("metadata", options.metadata),
    };
    const answer = await this.#call<EnsureTeamResponse>({ op, method: "PUT", path, body, signal: options.signal });
    return { team: answer.team ?? {}, created: answer.created ?? false };
  }

  /**
   * Ends keys for good and returns them: the key that is named, also when it had
   * ended before, or the session's live keys. Within five seconds, as a rule at
   * once, no proxy takes them and their streams are cut. What was never there is an
   * error with status 404. Of text, "sk-…" is a key, "key_…" a key's id, anything
   * else an alias. In direct mode there is nothing to end, and nothing is done.
   */
  async revokeVirtualKey(target: RevokeTarget, { signal }: CallOptions = {}): Promise<Key[]> {
    const op = "revoke a virtual key";
    const body = await selection(op, target);
    if (!this.isLLMProxyEnabled()) return [];
    // An alias or a session may have a new key by the time of a repeat.
    const once = !body.tokens && !body.key_ids;
    const answer = await this.#call<RevokeKeysResponse>({ op, method: "POST", path: "/v1/keys:revoke", body, once, signal });
    return answer.keys ?? [];
  }

  /**
   * Ends every key of a session and its running streams, waits until its requests
   * are settled, and tells what it has cost. In direct mode nobody knows that: it
   * throws.
   */
  async endSession(sessionId: string, { signal }: CallOptions = {}): Promise<SessionCost> {
    const op = "end a session";
    const path = `/v1/sessions/${segment(op, "session id", sessionId)}:end`;
    const answer = await this.#call<EndSessionResponse>({ op, method: "POST", path, body: {}, once: true, signal });
    return {
      keys: answer.keys ?? 0,
      requests: Number(answer.requests ?? 0),
      costNanoUsd: answer.cost_nano_usd ?? "0",
      openRequests: Number(answer.open_requests ?? 0),
    };
  }

  /**
   * Lists what was spent, a row a request, newest first. In direct mode nobody knows
   * that: it throws.
   */
  async listSpendLogs(filter: SpendFilter = {}): Promise<SpendPage> {
    const query = {
      team_id: filter.orgId,
      user_id: filter.sessionId,
      key_id: filter.keyId,
      request_id: filter.requestId,
      ended_after: filter.endedAfter?.toISOString(),
      ended_before: filter.endedBefore?.toISOString(),
      page_size: filter.pageSize?.toString(),
      page_token: filter.pageToken,
    };
    const op = "list spend logs";
    const answer = await this.#call<ListSpendResponse>({ op, method: "GET", path: "/v1/spend", query, signal: filter.signal });
    // The proxy writes every field, also those that are empty.
    return { rows: (answer.rows ?? []) as SpendLog[], nextPageToken: answer.next_page_token || undefined };
  }

  #call<T>(call: Call): Promise<T> {
    const { masterKey, timeoutMs = 30_000, maxRetries = 2 } = this.#config;
    const url = this.#urls.adminUrl ?? this.#urls.url;
    if (!url) throw new LLMProxyError(`${call.op}: there is no LLM proxy: LLM_PROXY_URL is not set`);
    if (!masterKey) throw new LLMProxyError(`${call.op}: LLM_PROXY_MASTER_KEY is not set`);
    const to: Connection = { url, masterKey, timeoutMs, maxRetries, fetch: this.#config.fetch ?? globalThis.fetch };
    return send<T>(to, call);
  }
}

/** One property, or none when its value is absent. */
function given<K extends string, V>(name: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [k in K]?: V });
}

function limitsOf({ maxBudget, limits }: Pick<SessionKeyOptions, "maxBudget" | "limits">): NonNullable<EnsureTeamBody["limits"]> {
  return { ...limits, ...(maxBudget === undefined ? {} : { max_budget_nano_usd: nanoUsd(maxBudget) }) };
}

/**
 * An id as a part of a path. The proxy's routes have no place for a slash, and dots
 * alone would name another route.
 */
function segment(op: string, name: string, id: string): string {
  if (!id) throw new LLMProxyError(`${op}: the ${name} is empty`);
  if (id === "." || id === "..") throw new LLMProxyError(`${op}: the ${name} consists of dots`);
  if (id.includes("/")) throw new LLMProxyError(`${op}: the ${name} holds a slash`);
  return encodeURIComponent(id);
}

/** What the proxy keeps of a virtual key: its SHA-256, LiteLLM's `token`. */
export async function tokenOf(key: string): Promise<string> {
  const sum = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  return Array.from(new Uint8Array(sum), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function selection(op: string, target: RevokeTarget): Promise<RevokeKeysRequest> {
  if (typeof target === "string") {
    if (target.startsWith("sk-")) target = { key: target };
    else target = target.startsWith("key_") ? { keyId: target } : { alias: target };
  }
  const { key, keyId, alias, sessionId } = target as { key?: string; keyId?: string; alias?: string; sessionId?: string };
  const body: RevokeKeysRequest = {
    ...(key ? { tokens: [await tokenOf(key)] } : {}), // the key itself does not travel
    ...(keyId ? { key_ids: [keyId] } : {}),
    ...(alias ? { key_aliases: [alias] } : {}),
    ...(sessionId ? { user_id: sessionId } : {}),
  };
  if (Object.keys(body).length !== 1) {
    throw new LLMProxyError(`${op}: name a key, a key's id, an alias or a session, and only one of them`);
  }
  return body;
}
