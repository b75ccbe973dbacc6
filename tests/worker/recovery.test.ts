// A trap ends a Wasm instance: the next request must find a new one that works, and remember nothing of the old. What becomes
// of requests in flight is tests/recovery.
import { createExecutionContext } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, test } from "vitest";
import { call, fresh } from "./client.ts";
import worker from "./entry.ts";

const trap = (init: RequestInit = {}) =>
  exports.default.fetch("https://kv.example/health", { ...init, headers: { "x-test-trap": "1", "x-request-id": "mine" } });
const instances = () => (globalThis as unknown as { __worker_init_state: { instanceId: number } }).__worker_init_state;

test("after a trap the next request is answered by a new instance", async () => {
  expect((await call("GET /health")).status).toBe(200);
  const before = instances().instanceId;
  const reply = await trap();
  expect([reply.status, reply.headers.get("retry-after"), reply.headers.get("x-request-id")]).toEqual([503, "1", "mine"]);
  expect(await reply.json()).toMatchObject({ type: "/problems/interrupted", status: 503 });
  expect(await (await trap({ method: "HEAD" })).text()).toBe("");
  expect((await call("GET /health")).status).toBe(200);
  expect(instances().instanceId).toBeGreaterThan(before);
});

test("a new instance reads settings, reaches KV and runs timers as the first did", async () => {
  const created = await call("POST /v1/sessions", { body: { userId: fresh("user") } });
  expect((await trap()).status).toBe(503);
  const verified = await call("POST /v1/sessions/verify", { body: { token: created.body.token } });
  expect(verified.status).toBe(200);
  const late = await call("POST /v1/sessions/verify", {
    body: { token: created.body.token },
    headers: { "x-test-faults": "SESSIONS.get=hang" },
  });
  expect(late.status).toBe(503);
});

test("traps in a row are survived each", async () => {
  for (let i = 0; i < 3; i += 1) {
    expect((await trap()).status).toBe(503);
    expect((await call("GET /health")).status).toBe(200);
  }
});

test("of more than 4096 that wait when an instance ends the oldest is given up, and every other one is told", async () => {
  const headers = { authorization: "Bearer dev-token", "content-type": "application/json" };
  // Each waits for a body that never comes.
  const wait = () => {
    const request = new Request("https://kv.example/v1/sessions", { method: "POST", headers, body: new ReadableStream() });
    return worker.fetch(request, env, createExecutionContext());
  };
  const [oldest, ...others] = Array.from({ length: 4097 }, wait);
  let isAnswered = false;
  void oldest!.then(() => (isAnswered = true));
  expect((await trap()).status).toBe(503);
  expect(new Set((await Promise.all(others)).map(({ status }) => status))).toEqual(new Set([503]));
  expect(isAnswered).toBe(false);
  expect((await call("GET /health")).status).toBe(200);
});
