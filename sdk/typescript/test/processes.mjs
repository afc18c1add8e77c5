// Plays a session's life against the proxy that the environment names, as a
// gateway does, and prints what it saw: dev/sdk_test.go compares it with the books.
import assert from "node:assert/strict";
import {
  endSession, ensureTeamExists, generateSessionAPIKey, getLLMProxyBaseURL, getLLMProxyURL, getOpencodeConfig, isLLMProxyEnabled,
  listSpendLogs, LLMProxyError, revokeVirtualKey, tokenOf,
} from "@proliferate-ai/llm-proxy";

const { SESSION: session, ORG: org, SANDBOX_URL: sandboxURL, FINANCE_TOKEN: finance, WRONG_KEY: wrong, ...env } = process.env;
const proxy = env.LLM_PROXY_URL.replace("/v1", "");

/** Runs something with another credential. */
async function as(credential, act) {
  process.env.LLM_PROXY_MASTER_KEY = credential;
  try {
    return await act();
  } finally {
    process.env.LLM_PROXY_MASTER_KEY = env.LLM_PROXY_MASTER_KEY;
  }
}

const message = (key) => fetch(`${proxy}/v1/messages`, {
  method: "POST",
  headers: { "x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json" },
  body: JSON.stringify({ model: "claude-haiku-4-5", max_tokens: 50, messages: [{ role: "user", content: "Hi" }] }),
});

const fails = (act, status) => assert.rejects(act, (e) => e instanceof LLMProxyError && e.status === status && !e.message.includes(wrong));

assert.equal(isLLMProxyEnabled(), true);
assert.equal(getLLMProxyURL(), proxy);
assert.equal(getLLMProxyBaseURL(), `${proxy}/v1`);

for (const made of [true, false]) {
  const { team, created } = await ensureTeamExists(org, { alias: "Acme", maxBudget: "12.5" });
  assert.deepEqual([team.team_id, team.team_alias, team.limits.max_budget_nano_usd, created], [org, "Acme", "12500000000", made]);
}

const options = { maxBudget: 1.000000001, metadata: { repo: "größer" }, idempotencyKey: "start" };
const first = await generateSessionAPIKey(session, org, options);
const { key, info, env: given, expiresAt, opencodeConfig, proxied } = await generateSessionAPIKey(session, org, options);
assert.equal(info.key_id, first.info.key_id);
assert.notEqual(key, first.key);
assert.equal(proxied, true);
assert.equal(info.token, await tokenOf(key));
assert.equal(info.limits.max_budget_nano_usd, "1000000001");
assert.deepEqual(info.metadata, options.metadata);
assert.ok(expiresAt - new Date(info.created_at) >= 2 * 3600 * 1000);
assert.deepEqual(given, { ANTHROPIC_API_KEY: key, LLM_PROXY_API_KEY: key, ANTHROPIC_BASE_URL: sandboxURL, LLM_PROXY_URL: sandboxURL });
process.env.LLM_PROXY_PUBLIC_URL = `${sandboxURL}/v1/`;
assert.deepEqual(getOpencodeConfig(key), opencodeConfig);

assert.equal((await message(key)).status, 200);
const { rows, nextPageToken } = await as(finance, () =>
  listSpendLogs({ sessionId: session, orgId: org, endedAfter: new Date(0), pageSize: 10 }));
assert.equal(rows.length, 1);
assert.equal(nextPageToken, undefined);
const [row] = rows;
assert.equal(row.status, "SPEND_STATUS_COMPLETED");
assert.equal(row.key_id, info.key_id);
assert.equal(row.usage.cache_write_5m_input_tokens, "0");
assert.equal(BigInt(row.cost_nano_usd), BigInt(row.usage.input_tokens) * 1000n + BigInt(row.usage.output_tokens) * 5000n);

const [revoked] = await revokeVirtualKey(key);
assert.equal(revoked.key_id, info.key_id);
assert.ok(revoked.revoked_at);
let requests = 1;
for (let status = 200; status !== 401; requests += status === 200) ({ status } = await message(key)); // the test's own deadline ends it
const last = await generateSessionAPIKey(session, org);
const cost = String(BigInt(row.cost_nano_usd) * BigInt(requests));
const ended = await endSession(session);
assert.ok(ended.requests >= requests); // one that was stopped while it was admitted counts too, at no cost
assert.deepEqual({ ...ended, requests }, { keys: 2, requests, costNanoUsd: cost, openRequests: 0 });

await fails(revokeVirtualKey({ sessionId: "nobody's" }), 404);
await fails(listSpendLogs(), 403);
await fails(as(wrong, () => endSession(session)), 401);

console.log(JSON.stringify({ keys: [first.key, key, last.key], requests, cost }));
