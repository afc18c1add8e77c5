import assert from "node:assert/strict";
import { test } from "node:test";
import { configFromEnv, LLMProxy, LLMProxyError, nanoUsd, usdOfNano } from "./index.js";

const connect = (env: Record<string, string>) => new LLMProxy(configFromEnv(env));

test("URLs have one /v1, or none", () => {
  for (const [given, url] of [
    [undefined, undefined],
    ["http://proxy:4000", "http://proxy:4000"],
    ["http://proxy:4000/", "http://proxy:4000"],
    ["https://proxy/v1", "https://proxy"],
    ["https://proxy/v1//v1/", "https://proxy"],
    ["https://host/llm/v1", "https://host/llm"],
    ["https://host/xv1", "https://host/xv1"],
    [" https://proxy ", "https://proxy"],
  ] as const) {
    const proxy = connect(given === undefined ? {} : { LLM_PROXY_URL: given });
    assert.equal(proxy.getLLMProxyURL(), url);
    assert.equal(proxy.getLLMProxyBaseURL(), url && `${url}/v1`);
    assert.equal(proxy.isLLMProxyEnabled(), url !== undefined);
  }
});

test("sandboxes get the public URL", () => {
  const proxy = connect({ LLM_PROXY_URL: "http://in:4000", LLM_PROXY_PUBLIC_URL: "https://out/v1/" });
  assert.equal(proxy.getLLMProxyURL(), "https://out");
  assert.equal(proxy.getLLMProxyBaseURL(), "https://out/v1");
});

test("wrong settings are named and not shown", () => {
  for (const [env, want] of [
    [{ LLM_PROXY_REQUIRED: "true" }, "LLM_PROXY_REQUIRED is true, but LLM_PROXY_URL is not set"],
    [{ LLM_PROXY_REQUIRED: "TRUE" }, "LLM_PROXY_REQUIRED is true, but LLM_PROXY_URL is not set"],
    [{ LLM_PROXY_REQUIRED: "secret" }, "LLM_PROXY_REQUIRED is neither true nor false"],
    [{ LLM_PROXY_URL: "secret" }, "LLM_PROXY_URL is not an http or https URL"],
    [{ LLM_PROXY_URL: "ftp://secret" }, "LLM_PROXY_URL is not an http or https URL"],
    [{ LLM_PROXY_URL: "http://me:secret@proxy" }, "LLM_PROXY_URL holds a user name or password; use LLM_PROXY_MASTER_KEY"],
    [{ LLM_PROXY_URL: "http://proxy?secret" }, "LLM_PROXY_URL has a query or a fragment"],
    [{ LLM_PROXY_URL: "http://proxy", LLM_PROXY_PUBLIC_URL: "secret" }, "LLM_PROXY_PUBLIC_URL is not an http or https URL"],
    [{ LLM_PROXY_ADMIN_URL: "http://secret" }, "LLM_PROXY_ADMIN_URL or LLM_PROXY_PUBLIC_URL is set, but LLM_PROXY_URL is not"],
    [{ LLM_PROXY_MASTER_KEY: "secret\nsecret" }, "LLM_PROXY_MASTER_KEY has characters that no header can carry"],
  ] as const) {
    assert.throws(() => connect(env), (e) => e instanceof LLMProxyError && e.message === want && !e.retryable);
  }
});

test("in direct mode a session gets the real key, and nothing is called", async () => {
  const fetch = () => assert.fail("something was called");
  const proxy = new LLMProxy({ ...configFromEnv({ LLM_PROXY_REQUIRED: "false", ANTHROPIC_API_KEY: "real" }), fetch });
  assert.deepEqual(await proxy.generateSessionAPIKey("s", "acme"), {
    key: "real", proxied: false, info: undefined, expiresAt: undefined,
    env: { ANTHROPIC_API_KEY: "real" }, opencodeConfig: { $schema: "https://opencode.ai/config.json" },
  });
  assert.equal(await proxy.ensureTeamExists("acme"), undefined);
  assert.deepEqual(await proxy.revokeVirtualKey({ sessionId: "s" }), []);
  await assert.rejects(proxy.endSession("s"), /there is no LLM proxy/);
  await assert.rejects(proxy.listSpendLogs(), /there is no LLM proxy/);
  await assert.rejects(connect({}).generateSessionAPIKey("s", "acme"), /neither LLM_PROXY_URL nor ANTHROPIC_API_KEY is set/);
});

test("OpenCode's configuration, with a proxy and without", () => {
  const proxy = connect({ LLM_PROXY_URL: "http://proxy/v1" });
  const provider = { anthropic: { options: { baseURL: "http://proxy/v1", apiKey: "sk-1" } } };
  assert.deepEqual(proxy.getOpencodeConfig("sk-1"), { $schema: "https://opencode.ai/config.json", provider });
  assert.throws(() => proxy.getOpencodeConfig(), LLMProxyError);
  const direct = connect({ ANTHROPIC_API_KEY: "real" }).getOpencodeConfig(undefined, { model: "anthropic/x" });
  assert.deepEqual(direct, { $schema: "https://opencode.ai/config.json", model: "anthropic/x" });
});

test("dollars are nano-dollars exactly", () => {
  for (const [usd, nano] of [
    [5, "5000000000"], [0.25, "250000000"], [0, "0"], ["0.000000001", "1"], [1e-9, "1"], ["1e-06", "1000"], ["1.5E2", "150000000000"],
    ["9223372036.854775807", "9223372036854775807"], [".5", "500000000"], ["5.", "5000000000"], ["0.1000000000", "100000000"],
    ["0e99", "0"], [123456789.123456, "123456789123456000"],
  ] as const) {
    assert.equal(nanoUsd(usd), nano);
  }
  for (const wrong of ["", ".", "-1", "1,5", "NaN", "$5", "1e999999", "0.0000000001", 1e-10, 0.1 + 0.2, "9223372036.854775808", 1e30, Infinity]) {
    assert.throws(() => nanoUsd(wrong), LLMProxyError, String(wrong));
  }
  for (const [nano, usd] of [["0", "0"], ["1", "0.000000001"], ["-1500000", "-0.0015"], ["5000000000", "5"], [12n, "0.000000012"]] as const) {
    assert.equal(usdOfNano(nano), usd);
  }
});
