// Written by scripts/generate.mjs from gen/api.swagger.json; do not edit.
// 64-bit integers, money among them, are strings.

/** BudgetLimit is a budget in a window. */
export interface BudgetLimit {
  /** Most that may be spent in a window, in nano-dollars (1e-9 USD). */
  max_budget_nano_usd?: string;
  /** The window in LiteLLM's grammar. Empty: it never ends. */
  budget_duration?: string;
}

/**
 * BudgetMode says when a request is too much for a budget.
 *
 * - BUDGET_MODE_UNSPECIFIED: The proxy's default: hard, unless it is set otherwise.
 * - BUDGET_MODE_HARD: A request is admitted only if its worst case still fits.
 * - BUDGET_MODE_SOFT: A request is admitted while less than the budget is spent: LiteLLM's rule.
 */
export type BudgetMode = "BUDGET_MODE_UNSPECIFIED" | "BUDGET_MODE_HARD" | "BUDGET_MODE_SOFT";

export type EndSessionBody = Record<string, unknown>;

export interface EndSessionResponse {
  /** Keys that the session ever had, also those that had ended before. */
  keys?: number;
  /** Requests of the session, by all of its keys. */
  requests?: string;
  /** Final cost at list price, in nano-dollars. */
  cost_nano_usd?: string;
  /**
   * Requests that were not settled within 10 seconds, as a replica that died may
   * leave them: then the cost is not final yet. 0 otherwise.
   */
  open_requests?: string;
}

export interface EnsureTeamBody {
  team_alias?: string;
  limits?: Limits | null;
  models?: string[];
  metadata?: Record<string, unknown>;
}

export interface EnsureTeamResponse {
  team?: Team | null;
  /** This call made the team. */
  created?: boolean;
}

export interface IssueSessionKeyBody {
  /** The organisation. Required; made when unknown. */
  team_id?: string;
  /** The team's name, used only when the team is made. */
  team_alias?: string;
  /**
   * Life of the key in LiteLLM's grammar ("30m", "24h", "7d"); "-1": for ever.
   * Empty: the service's default for keys, else LLM_PROXY_KEY_DURATION.
   */
  duration?: string;
  /** Limits of the key. */
  limits?: Limits | null;
  /** Model names the key may use. Empty: all. */
  models?: string[];
  metadata?: Record<string, unknown>;
  /**
   * Chosen by the caller; a repeat with the same value, user_id and team_id
   * returns the same key_id, with a fresh secret, and the key's attributes as they
   * are; with another team_id it is refused. Empty: each call makes a new key.
   */
  idempotency_key?: string;
  tags?: string[];
  /** Names of the key's own for models, at most 100. */
  aliases?: Record<string, string>;
  /** Networks that requests may come from, at most 100. Empty: any. */
  allowed_cidrs?: string[];
  /** Routes that the key may call, at most 100. Empty: all of a virtual key. */
  allowed_routes?: string[];
}

export interface IssueSessionKeyResponse {
  key?: Key | null;
  /** The plaintext, "sk-…". It is returned here and never again. */
  secret?: string;
  /**
   * Environment for the sandbox: ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL,
   * LLM_PROXY_API_KEY, LLM_PROXY_URL.
   */
  env?: Record<string, string>;
  /** Content of an opencode.json that uses the key. */
  opencode_config?: Record<string, unknown>;
}

/** Key is a virtual key without its secret. */
export interface Key {
  /** Identifier, "key_" and 26 characters; never reused. */
  key_id?: string;
  /** Lower-case hex SHA-256 of the secret: LiteLLM's `token`. */
  token?: string;
  /** "sk-..." and the last four characters of the secret, for people. */
  key_name?: string;
  /** Name given by the caller, unique among live keys. Empty: none. */
  key_alias?: string;
  /**
   * The organisation that pays. Empty: a key without a team, which can spend
   * but is never billed.
   */
  team_id?: string;
  /** The session. Empty: none. */
  user_id?: string;
  /** Model names the key may use. Empty: all. */
  models?: string[];
  /** What the key may use. */
  limits?: Limits | null;
  /** Free data of the caller, returned unchanged. */
  metadata?: Record<string, unknown>;
  /** When the key stops working. Absent: never. */
  expires_at?: string | null;
  /** Whether the key is blocked. */
  blocked?: boolean;
  /** When the key was revoked. Absent: it is live. */
  revoked_at?: string | null;
  created_at?: string | null;
  updated_at?: string | null;
  /** Life that was asked for, as it was written ("24h"). Empty: for ever. */
  duration?: string;
  /** Tags put on every request of the key. */
  tags?: string[];
  /** Names of the key's own for models: what a client sends → what is meant. */
  aliases?: Record<string, string>;
  /** Networks that requests may come from, such as "10.0.0.0/8". Empty: any. */
  allowed_cidrs?: string[];
  /**
   * Routes that the key may call: paths ("/v1/messages", "/v1/models/*") or
   * LiteLLM's groups ("llm_api_routes", "info_routes"). Empty: all of a virtual
   * key.
   */
  allowed_routes?: string[];
  /** When RotateKey last gave the key a new secret. Absent: never. */
  rotated_at?: string | null;
}

/** Limits bound what a key or a team may use. An absent field: no limit. */
export interface Limits {
  /**
   * Most that may be spent, in nano-dollars (1e-9 USD), at list price (before
   * any markup). Zero: nothing.
   */
  max_budget_nano_usd?: string;
  /** Requests a minute. */
  rpm_limit?: string;
  /** Tokens a minute, input and output. */
  tpm_limit?: string;
  /** Requests in flight at once. */
  max_parallel_requests?: string;
  /**
   * Window after which the spent budget starts again, in LiteLLM's grammar
   * ("24h", "30d", "1mo"). Empty: the budget never resets.
   */
  budget_duration?: string;
  /** Further budgets, each with a window of its own. All hold at once; at most 10. */
  budget_limits?: BudgetLimit[];
  /**
   * An alert is sent once a window when this much is spent, in nano-dollars;
   * nothing is refused for it.
   */
  soft_budget_nano_usd?: string;
  /** Budgets of single models by the name that clients send; at most 100. */
  model_max_budget?: Record<string, BudgetLimit>;
  /** Requests and tokens a minute of single models; at most 100 each. */
  model_rpm_limit?: Record<string, string>;
  model_tpm_limit?: Record<string, string>;
  /**
   * Added to max_budget_nano_usd until temp_budget_expires_at, in nano-dollars.
   * Both are given, or neither.
   */
  temp_budget_increase_nano_usd?: string;
  temp_budget_expires_at?: string | null;
  /** How budgets are held. */
  budget_mode?: BudgetMode;
}

export interface ListSpendResponse {
  rows?: SpendRow[];
  /** Empty: the last page. */
  next_page_token?: string;
}

export interface RevokeKeysRequest {
  key_ids?: string[];
  key_aliases?: string[];
  /** Lower-case hex SHA-256 of the secrets, also of those that were rotated away. */
  tokens?: string[];
  /** Every live key of the session. */
  user_id?: string;
  /** Every live key of the team. */
  team_id?: string;
}

export interface RevokeKeysResponse {
  /** The keys that this call revoked or that were revoked before. */
  keys?: Key[];
  /** Revision of the change: a watcher that has seen it refuses the keys. */
  revision?: string;
}

/** SpendRow is one upstream request on the ledger. Rows are never edited. */
export interface SpendRow {
  log_id?: string;
  seq?: string;
  /**
   * Ours: "req_" and 26 characters, ordered by time; also sent to the client
   * as x-llmproxy-request-id.
   */
  request_id?: string;
  /** The upstream's message id. Empty: there was none. */
  message_id?: string;
  /** The upstream's request-id header. Empty: there was none. */
  upstream_request_id?: string;
  key_id?: string;
  /** LiteLLM's `api_key`: the key's token. */
  token?: string;
  team_id?: string;
  user_id?: string;
  /** Name that the client sent. */
  model_group?: string;
  /** Name that was sent to the upstream. */
  model?: string;
  /** The deployment's id. */
  model_id?: string;
  usage?: Usage | null;
  /** Cost at list price in nano-dollars (1e-9 USD). */
  cost_nano_usd?: string;
  /** Version of the price file that it was computed with. */
  price_version?: string;
  status?: SpendStatus;
  /**
   * True: some of the usage was estimated, since the upstream's own count did
   * not arrive.
   */
  estimated?: boolean;
  stream?: boolean;
  stop_reason?: string;
  /** HTTP status of the upstream. 0: no answer arrived. */
  http_status?: number;
  /** Type of the error, e.g. "overloaded_error". Empty: none. */
  error_type?: string;
  started_at?: string | null;
  /** First byte of the answer. Absent: none arrived. */
  first_byte_at?: string | null;
  ended_at?: string | null;
  tags?: string[];
  user_agent?: string;
  /** How often the request was sent again before, to this deployment or others. */
  retries?: number;
  /** The request whose row this one corrects. Empty: it is a request's own row. */
  adjusts?: string;
  /**
   * Ids and agent headers that the client sent: user_id (of metadata),
   * session_id, trace_id, call_id, client_request_id, end_user, app, retry_count,
   * sdk_lang.
   */
  client?: Record<string, string>;
  /**
   * Cost by pool in nano-dollars: input, output, cache_read, cache_write_5m,
   * cache_write_1h, web_search. The sum is cost_nano_usd; empty for corrections.
   */
  cost_breakdown_nano_usd?: Record<string, string>;
}

/**
 * SpendStatus says how a request ended.
 *
 * - SPEND_STATUS_COMPLETED: The upstream's answer arrived whole.
 * - SPEND_STATUS_FAILED: The upstream answered with an error before any content.
 * - SPEND_STATUS_INTERRUPTED: The upstream ended the stream with an error event or cut it.
 * - SPEND_STATUS_ABORTED: The client went away.
 * - SPEND_STATUS_STOPPED: We ended it: revoked, exhausted, idle, shutting down.
 * - SPEND_STATUS_ABANDONED: The replica died; another one settled from the usage last seen.
 * - SPEND_STATUS_ADJUSTED: A correction: usage and cost are the differences to what another row says
 * of the request, and may be negative.
 */
export type SpendStatus = "SPEND_STATUS_UNSPECIFIED" | "SPEND_STATUS_COMPLETED" | "SPEND_STATUS_FAILED" | "SPEND_STATUS_INTERRUPTED" | "SPEND_STATUS_ABORTED" | "SPEND_STATUS_STOPPED" | "SPEND_STATUS_ABANDONED" | "SPEND_STATUS_ADJUSTED";

/** Team is an organisation. */
export interface Team {
  /** Chosen by the caller, 1 to 200 characters. */
  team_id?: string;
  /** Name for people. Empty: none. */
  team_alias?: string;
  /** What the keys of the team may use together. */
  limits?: Limits | null;
  /** Model names the team's keys may use. Empty: all. */
  models?: string[];
  metadata?: Record<string, unknown>;
  status?: TeamStatus;
  /** Why the team is not active, in words that a user may read. */
  status_reason?: string;
  created_at?: string | null;
  updated_at?: string | null;
  /**
   * When the team was deleted. What is left of it is its id, its name and its
   * history. Absent: it was not.
   */
  deleted_at?: string | null;
}

/**
 * TeamStatus is the team's gate.
 *
 * - TEAM_STATUS_ACTIVE: Requests are admitted.
 * - TEAM_STATUS_BLOCKED: Stopped by an administrator.
 * - TEAM_STATUS_EXHAUSTED: The organisation's credits are used up.
 * - TEAM_STATUS_SUSPENDED: Stopped by billing.
 */
export type TeamStatus = "TEAM_STATUS_UNSPECIFIED" | "TEAM_STATUS_ACTIVE" | "TEAM_STATUS_BLOCKED" | "TEAM_STATUS_EXHAUSTED" | "TEAM_STATUS_SUSPENDED";

/** Usage is what the upstream reported, pools apart, in tokens. */
export interface Usage {
  /** Input that was neither read from nor written to a cache. */
  input_tokens?: string;
  output_tokens?: string;
  cache_read_input_tokens?: string;
  /** Written to the 5-minute cache. */
  cache_write_5m_input_tokens?: string;
  /** Written to the 1-hour cache. */
  cache_write_1h_input_tokens?: string;
  web_search_requests?: string;
  /** Speed that was served, e.g. "fast". Empty: standard. */
  speed?: string;
  /** Geography that was served, e.g. "us". Empty: not reported. */
  inference_geo?: string;
  /** Tier that was served, e.g. "standard", "priority", "batch". */
  service_tier?: string;
  /** Part of output_tokens. */
  reasoning_tokens?: string;
}
