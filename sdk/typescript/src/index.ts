/**
 * The gateway's client of LLM Proxy. The functions take their configuration from
 * the environment, each time that they are called; `LLMProxy` is the same with a
 * configuration of its own.
 */
import { LLMProxy } from "./client.js";
import type { Key, Team } from "./generated.js";
import type {
  CallOptions, OpencodeConfig, RevokeTarget, SessionCost, SessionKey, SessionKeyOptions, SpendFilter, SpendPage, TeamOptions,
} from "./types.js";

export { LLMProxy, tokenOf } from "./client.js";
export { configFromEnv, type Config } from "./config.js";
export { LLMProxyError } from "./errors.js";
export type { BudgetLimit, BudgetMode, Key, Limits, SpendStatus, Team, TeamStatus, Usage } from "./generated.js";
export { nanoUsd, usdOfNano } from "./money.js";
export type * from "./types.js";

/** Whether there is a proxy. Throws when one is required and there is none. */
export const isLLMProxyEnabled = (): boolean => new LLMProxy().isLLMProxyEnabled();

/** {@link LLMProxy.getLLMProxyURL} */
export const getLLMProxyURL = (): string | undefined => new LLMProxy().getLLMProxyURL();

/** {@link LLMProxy.getLLMProxyBaseURL} */
export const getLLMProxyBaseURL = (): string | undefined => new LLMProxy().getLLMProxyBaseURL();

/** {@link LLMProxy.getOpencodeConfig} */
export const getOpencodeConfig = (key?: string, options?: { model?: string }): OpencodeConfig =>
  new LLMProxy().getOpencodeConfig(key, options);

/** {@link LLMProxy.generateSessionAPIKey} */
export const generateSessionAPIKey = async (sessionId: string, orgId: string, options?: SessionKeyOptions): Promise<SessionKey> =>
  new LLMProxy().generateSessionAPIKey(sessionId, orgId, options);

/** {@link LLMProxy.ensureTeamExists} */
export const ensureTeamExists = async (orgId: string, options?: TeamOptions): Promise<{ team: Team; created: boolean } | undefined> =>
  new LLMProxy().ensureTeamExists(orgId, options);

/** {@link LLMProxy.revokeVirtualKey} */
export const revokeVirtualKey = async (target: RevokeTarget, options?: CallOptions): Promise<Key[]> =>
  new LLMProxy().revokeVirtualKey(target, options);

/** {@link LLMProxy.endSession} */
export const endSession = async (sessionId: string, options?: CallOptions): Promise<SessionCost> =>
  new LLMProxy().endSession(sessionId, options);

/** {@link LLMProxy.listSpendLogs} */
export const listSpendLogs = async (filter?: SpendFilter): Promise<SpendPage> => new LLMProxy().listSpendLogs(filter);
