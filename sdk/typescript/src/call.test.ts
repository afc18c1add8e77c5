import assert from "node:assert/strict";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { LLMProxy, LLMProxyError, tokenOf, type RevokeTarget } from "./index.js";

const masterKey = "sk-master-0123456789";

interface Seen {
  path: string;
  authorization: string | undefined;
  body: Record<string, unknown>;
}

/** Answers each call with the next answer, and with the last one after that. */
async function stand(t: TestContext, ...answers: ((response: ServerResponse) => void)[]) {
  const seen: Seen[] = [];
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const text = Buffer.concat(parts).toString();
    const { method, url, headers } = request;
    seen.push({ path: `${method} ${url}`, authorization: headers.authorization, body: text ? JSON.parse(text) : {} });
    answers[Math.min(seen.length, answers.length) - 1]?.(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, seen, proxy: new LLMProxy({ url, masterKey }) };
}

const says = (status: number, body: string, headers: Record<string, string> = {}) => (response: ServerResponse) => {
  response.writeHead(status, headers).end(body);
};
const soon = { "retry-after": "0" };
const issued = says(200, '{"key":{"key_id":"key_1"},"secret":"sk-1","env":{},"opencode_config":{}}');

test("issuing is repeated under one idempotency key", async (t) => {
  const { proxy, seen } = await stand(t, says(503, '{"message":"not now"}', soon), (response) => response.destroy(), issued);
  const key = await proxy.generateSessionAPIKey("a b?", "acme", { maxBudget: "0.5", duration: "1h", limits: { rpm_limit: "7" } });
  assert.equal(key.key, "sk-1");
  assert.equal(seen.length, 3);
  assert.equal(seen[0]?.path, "POST /v1/sessions/a%20b%3F/key");
  assert.equal(seen[0]?.authorization, `Bearer ${masterKey}`);
  assert.deepEqual(seen[0]?.body["limits"], { max_budget_nano_usd: "500000000", rpm_limit: "7" });
  assert.ok(seen[0]?.body["idempotency_key"]);
  assert.equal(new Set(seen.map((s) => s.body["idempotency_key"])).size, 1);
});

test("only what is safe is repeated", async (t) => {
  const issue = (proxy: LLMProxy) => proxy.generateSessionAPIKey("s", "acme");
  const revoke = (target: RevokeTarget) => (proxy: LLMProxy) => proxy.revokeVirtualKey(target);
  for (const [name, act, status, body, headers, calls, retryable] of [
    ["a wrong request", issue, 400, "{}", soon, 1, false],
    ["a wrong credential", issue, 401, "{}", soon, 1, false],
    ["an error inside", issue, 500, "{}", soon, 1, false],
    ["too many requests", issue, 429, "{}", soon, 3, true],
    ["an overloaded proxy", issue, 503, "{}", soon, 3, true],
    ["a conflict", issue, 409, '{"code":6}', soon, 1, false],
    ["a change meanwhile", issue, 409, '{"code":10}', soon, 3, true],
    ["told not to", issue, 503, "{}", { "x-should-retry": "false" }, 1, false],
    ["a redirect", issue, 307, "", { location: "/elsewhere" }, 1, false],
    ["revoking one key", revoke("sk-1"), 503, "{}", soon, 3, true],
    ["revoking a session, which may have a new key", revoke({ sessionId: "s" }), 503, "{}", soon, 1, true],
    ["revoking an alias, which may be taken anew", revoke("a"), 503, "{}", soon, 1, true],
    ["revoking a session, turned away", revoke({ sessionId: "s" }), 429, "{}", soon, 3, true],
  ] as const) {
    await t.test(name, async (t) => {
      const { proxy, seen } = await stand(t, says(status, body, headers));
      await assert.rejects(act(proxy), (e) => e instanceof LLMProxyError && e.status === status && e.retryable === retryable);
      assert.equal(seen.length, calls);
    });
  }
});

test("errors say what the proxy says, without secrets", async (t) => {
  for (const [body, want] of [
    ['{"code":3,"message":"duration: no"}', "end a session: HTTP 400: duration: no"],
    ['{"error":{"message":"duration: no"}}', "end a session: HTTP 400: duration: no"],
    [`<html>${masterKey}`, "end a session: HTTP 400: bad request"],
    ["null", "end a session: HTTP 400: bad request"],
    [`{"message":"no ${masterKey}"}`, "end a session: HTTP 400: no [secret]"],
    ['{"message":"no sk-abcdefgh12345"}', "end a session: HTTP 400: no [secret]"],
  ] as const) {
    const { proxy } = await stand(t, says(400, body));
    await assert.rejects(proxy.endSession("s"), { name: "LLMProxyError", message: want });
  }
});

test("answers of something else are errors", async (t) => {
  for (const body of ["<html>", "{}"]) {
    const { proxy } = await stand(t, says(200, body));
    await assert.rejects(proxy.generateSessionAPIKey("s", "acme"), /not LLM Proxy's/);
  }
});

test("timeouts are errors that may be tried again; the caller's signal ends everything", async (t) => {
  let arrived = () => {};
  const { url, seen } = await stand(t, () => arrived());
  const hasty = new LLMProxy({ url, masterKey, timeoutMs: 1, maxRetries: 0 });
  await assert.rejects(hasty.endSession("s"), (e) => e instanceof LLMProxyError && e.retryable && e.status === undefined);
  const before = seen.length;
  const controller = new AbortController();
  arrived = () => controller.abort(new Error("enough"));
  const patient = new LLMProxy({ url, masterKey });
  await assert.rejects(patient.generateSessionAPIKey("s", "acme", { signal: controller.signal }), { message: "enough" });
  await assert.rejects(patient.listSpendLogs({ signal: controller.signal }), { message: "enough" });
  assert.ok(seen.length <= before + 2, `${seen.length} calls`);
});

test("ids that no path can hold are refused", async (t) => {
  const { proxy, seen } = await stand(t, says(200, "{}"));
  for (const id of ["", ".", "..", "a/b"]) {
    await assert.rejects(proxy.endSession(id), LLMProxyError);
    await assert.rejects(proxy.ensureTeamExists(id), LLMProxyError);
  }
  assert.equal(seen.length, 0);
});

test("what is to be revoked is named once, and a key only by its hash", async (t) => {
  const { proxy, seen } = await stand(t, says(200, "{}"));
  await assert.rejects(proxy.revokeVirtualKey({} as RevokeTarget), LLMProxyError);
  await assert.rejects(proxy.revokeVirtualKey({ key: "sk-1", alias: "a" } as RevokeTarget), LLMProxyError);
  for (const target of ["sk-1", "key_1", "a", { sessionId: "s" }] as const) await proxy.revokeVirtualKey(target);
  assert.deepEqual(seen.map((s) => s.body), [{ tokens: [await tokenOf("sk-1")] }, { key_ids: ["key_1"] }, { key_aliases: ["a"] }, { user_id: "s" }]);
});
