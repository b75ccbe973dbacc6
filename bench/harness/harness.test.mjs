// What the harness itself must get right, for numbers to mean anything: `node --test bench/harness/`.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { headersOf, once, readReply, render } from "./http.mjs";
import { median, perRequest, ratio, shape, unfairness } from "./report.mjs";
import { cpuMicros, prepare, start } from "./workerd.mjs";

// A Worker that runs `POST /` `[operation, ...arguments]` on a real KV binding, so that the runtime's own client speaks.
const PROBE = `export default { async fetch(request, env) {
  const [operation, ...args] = await request.json();
  try {
    const result = await env.KV[operation](...args);
    return Response.json({ result: result instanceof Map ? Object.fromEntries(result) : result ?? null });
  } catch (error) {
    return Response.json({ error: error.message });
  }
} }`;

const compatibilityDate = "2026-10-01";
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "kv-bench-test-"));
const running = {};

before(async () => {
  const source = fs.readFileSync(path.join(path.dirname(fileURLToPath(import.meta.url)), "kv.js"));
  const kv = prepare({ name: "kv", compatibilityDate, files: { "index.js": source } }, path.join(folder, "kv"));
  const probe = { name: "probe", compatibilityDate, kvBindings: ["KV"], files: { "index.js": PROBE } };
  running.kv = await start(kv);
  running.probe = await start(prepare(probe, path.join(folder, "probe"), kv.socket));
  running.idle = await start(prepare({ ...probe, name: "idle" }, path.join(folder, "idle"), kv.socket));
});

after(async () => {
  await Promise.all(Object.values(running).map((each) => each.stop()));
  fs.rmSync(folder, { recursive: true, force: true });
});

async function kv(...body) {
  const reply = await once(running.probe.socket, { method: "POST", path: "/", body });
  return JSON.parse(reply.body.toString());
}

async function control(command) {
  const reply = await once(running.kv.socket, { method: "GET", path: "/", headers: { "x-kv-control": command } });
  return JSON.parse(reply.body.toString());
}

test("a value comes back with its metadata, and is gone after a delete", async () => {
  await kv("put", "a/ü%:1", "one", { metadata: { n: 1 }, expirationTtl: 60 });
  assert.deepEqual((await kv("getWithMetadata", "a/ü%:1")).result, { value: "one", metadata: { n: 1 }, cacheStatus: null });
  await kv("delete", "a/ü%:1");
  assert.deepEqual(await kv("get", "a/ü%:1"), { result: null });
});

test("a bulk read answers null for a missing key", async () => {
  await kv("put", "bulk:1", "one");
  assert.deepEqual(await kv("get", ["bulk:1", "bulk:2"], { type: "text", cacheTtl: 30 }), { result: { "bulk:1": "one", "bulk:2": null } });
});

test("a list pages through the prefix in the order of UTF-8 bytes", async () => {
  for (const key of ["list:😀", "list:\uffff", "list:a", "other:a"]) await kv("put", key, "x");
  const first = (await kv("list", { prefix: "list:", limit: 2 })).result;
  assert.deepEqual(first.keys.map(({ name }) => name), ["list:a", "list:\uffff"]);
  assert.equal(first.list_complete, false);
  const second = (await kv("list", { prefix: "list:", limit: 2, cursor: first.cursor })).result;
  assert.deepEqual(second.keys.map(({ name }) => name), ["list:😀"]);
  assert.equal(second.list_complete, true);
});

test("what KV refuses is refused", async () => {
  const refused = async (expected, ...operation) => assert.match((await kv(...operation)).error, expected);
  await refused(/400 Invalid expiration_ttl of 5/, "put", "k", "v", { expirationTtl: 5 });
  await refused(/400 Invalid cache_ttl of 29/, "get", "k", { cacheTtl: 29 });
  await refused(/414 UTF-8 encoded length of 513/, "put", "k".repeat(513), "v");
  await refused(/413 Metadata length of/, "put", "k", "v", { metadata: "m".repeat(1024) });
  await refused(/400 You can request a maximum of 100 keys/, "get", Array.from({ length: 101 }, (_, i) => `k${i}`));
});

test("operations are counted per peer as KV bills them", async () => {
  await control("reset");
  await kv("put", "k:1", "v");
  await kv("get", ["k:1", "k:2"]);
  await kv("get", "k:1");
  await kv("list", {});
  await kv("delete", "k:1");
  assert.deepEqual(await control("reset"), { probe: { reads: 3, writes: 1, deletes: 1, lists: 1, calls: 5 } });
  assert.deepEqual(await control("counts"), {});
});

test("CPU time is that of the process that worked, not of one that idled", async () => {
  const pids = [running.probe.pid, running.idle.pid];
  const began = pids.map(cpuMicros);
  for (let i = 0; i < 300; i += 1) await kv("put", "k:1", "v");
  const [worked, idled] = pids.map((pid, i) => cpuMicros(pid) - began[i]);
  assert.ok(worked > idled, `${worked} µs against ${idled} µs`);
});

test("a reply is read whole or not at all", () => {
  const whole = Buffer.from("HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok");
  for (let length = 0; length < whole.length; length += 1) assert.equal(readReply(whole.subarray(0, length)), null);
  const reply = readReply(Buffer.concat([whole, whole]));
  assert.deepEqual([reply.status, reply.body.toString(), reply.end, headersOf(reply)["x-a"]], [201, "ok", whole.length, "b"]);
});

test("a chunked reply is put together", () => {
  const whole = Buffer.from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  for (let length = 0; length < whole.length; length += 1) assert.equal(readReply(whole.subarray(0, length)), null);
  assert.equal(readReply(whole).body.toString(), "abcde");
});

test("a request carries its length in bytes", () => {
  assert.match(render({ method: "POST", path: "/", body: "ü" }).toString(), /Content-Length: 4\r\n\r\n"ü"$/);
  assert.match(render({ method: "PUT", path: "/", body: Buffer.from("ü") }).toString(), /octet-stream\r\nContent-Length: 2\r\n\r\nü$/);
  assert.equal(render({ method: "GET", path: "/a" }).toString(), "GET /a HTTP/1.1\r\nHost: bench.invalid\r\n\r\n");
});

test("medians and ratios are taken round by round", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.deepEqual(ratio([10, 30, 20], [10, 10, 10]), { median: 2, min: 1, max: 3 });
  assert.deepEqual(perRequest(undefined, { reads: 20 }, 10), { reads: 2, writes: 0, deletes: 0, lists: 0, calls: 0 });
});

test("a Durable Object has SQLite", async () => {
  const source = `import { DurableObject } from "cloudflare:workers";
export class Counter extends DurableObject {
  async fetch() {
    const { sql } = this.ctx.storage;
    sql.exec("CREATE TABLE IF NOT EXISTS hits (n)");
    sql.exec("INSERT INTO hits VALUES (1)");
    return Response.json(sql.exec("SELECT count(*) AS n FROM hits").one());
  }
}
export default { fetch: (request, env) => env.COUNTER.getByName("a").fetch(request) };`;
  const durableObjects = [{ name: "COUNTER", className: "Counter" }];
  const worker = await start(prepare({ name: "objects", compatibilityDate, files: { "index.js": source }, durableObjects }, path.join(folder, "objects")));
  try {
    for (const n of [1, 2]) assert.deepEqual(JSON.parse((await once(worker.socket, { method: "GET", path: "/" })).body.toString()), { n });
  } finally {
    await worker.stop();
  }
});

test("a Worker that does not start says why", async () => {
  const broken = prepare({ name: "broken", compatibilityDate, files: { "index.js": "no such syntax" } }, path.join(folder, "broken"));
  await assert.rejects(start(broken), /broken.*SyntaxError/s);
});

function peer(body, { reads = 1, header = "x-request-id: 1" } = {}) {
  const head = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver-timing: kv\r\n${header}`;
  const operations = { reads, writes: 0, deletes: 0, lists: 0, calls: 1 };
  return { reply: { head, body: Buffer.from(JSON.stringify(body)) }, operations };
}

test("an unfair row is told, a fair one is not", () => {
  const fair = peer({ id: "a", roles: ["x"] });
  assert.equal(shape({ b: [1], a: null }), "{a:null,b:[number]}");
  assert.deepEqual(unfairness({ floor: fair, typescript: fair, ours: peer({ roles: ["y"], id: "b" }) }), []);
  assert.match(unfairness({ typescript: peer({ id: "a" }), ours: fair })[0], /typescript answers/);
  assert.match(unfairness({ typescript: peer({ id: "a", roles: ["x"] }, { header: "x-other: 1" }), ours: fair })[0], /lacks the header x-request-id/);
  assert.match(unfairness({ floor: peer({ id: "a", roles: ["x"] }, { reads: 2 }), ours: fair })[0], /floor makes r=2/);
  assert.match(unfairness({ floor: peer({ id: "a" }), ours: fair })[0], /floor answers 10 bytes/);
});
