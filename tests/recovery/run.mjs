// What becomes of requests that wait for another one when that one fails, or when their Wasm instance ends: on raw workerd, the
// platform without anything around it, because Vitest's runner switches off what it rests on, that a promise of one request may
// be kept by another (`handle_cross_request_promise_resolution`); and with V8 optimizing at once what it otherwise optimizes
// after some ten thousand calls, because from then on a promise may lack the mark of the request that made it.
import assert from "node:assert/strict";
import http from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { build } from "../../scripts/bundle.mjs";
import { main } from "../../scripts/lib.mjs";
import { prepare, start } from "../../bench/harness/workerd.mjs";
import { kvWorker, peerWorkers, requestHeaders } from "../../bench/peers.mjs";

const PATHS = 20;
const CLIENTS = 300;
const V8_FLAGS = ["--invocation-count-for-turbofan=10"];
// Ours with ways to end its instance.
const ENTRY = "tests/recovery/entry.js";

/** An origin that cuts some requests, by a generator with a seed, after a while. */
async function startFailingOrigin() {
  let state = 1;
  const server = http.createServer((request, response) => {
    state = (state * 48271) % 2147483647;
    const [isCut, millis] = [state % 10 < 3, 5 + (state % 31)];
    setTimeout(() => {
      if (isCut) return request.socket.destroy();
      response.setHeader("Cache-Control", "max-age=60").end("good");
    }, millis);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.closeAllConnections() ?? server.close() };
}

/** Those who waited for a request that failed ask themselves, each in its own name. */
async function checkFailing(call, stderr) {
  const origin = await startFailingOrigin();
  try {
    assert.equal((await call("PUT", "/v1/origins/failing", { body: JSON.stringify({ baseUrl: origin.url }) })).status, 200);
    const counts = {};
    for (let round = 0; round < 30; round += 1) {
      const reads = Array.from({ length: 120 }, (_, at) => call("GET", `/v1/fetch/failing/${round}/${at % 6}`));
      for (const { status } of await Promise.all(reads)) counts[status] = (counts[status] ?? 0) + 1;
    }
    console.log(`  an origin that cuts three calls of ten: ${JSON.stringify(counts)}`);
    // Two failures in a row are told, nothing else may go wrong.
    assert.deepEqual(Object.keys(counts), ["200", "502"], stderr());
    assert.ok(counts[502] < counts[200] / 4);
  } finally {
    origin.stop();
  }
}

/** An origin that answers nobody before `open()`, and everybody after. `asked(n)` resolves when it has n requests. */
async function startOrigin() {
  const seen = [];
  let open;
  let waiting = [];
  const gate = new Promise((resolve) => (open = resolve));
  const server = http.createServer(async (request, response) => {
    seen.push(`${request.method} ${request.url}`);
    waiting = waiting.filter(({ count, resolve }) => seen.length < count || resolve());
    await gate;
    response.setHeader("Cache-Control", "max-age=60").end("good");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const asked = (count) => new Promise((resolve) => (seen.length >= count ? resolve() : waiting.push({ count, resolve })));
  const stop = () => server.closeAllConnections() ?? server.close();
  return { url: `http://127.0.0.1:${server.address().port}`, seen, asked, open, stop };
}

/** On a connection of its own: one on which a body was left unread is closed by the server, whenever that is noticed. */
function send(socketPath, method, path, { headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const options = { socketPath, method, path, headers: { ...requestHeaders, ...headers }, agent: false };
    if (body !== undefined) options.headers["content-type"] ??= "application/json";
    const request = http.request(options, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }));
    });
    request.on("error", (error) => reject(new Error(`${method} ${path}: ${error.message}`))).end(body);
  });
}

/** Who waited for a lock and left does not keep it from the next: the object is not told that the client is gone. */
async function checkGone(call, socketPath) {
  const path = "/v1/locks/left/acquire";
  const wanted = (owner, waitSeconds) => JSON.stringify({ ttlSeconds: 60, owner, waitSeconds });
  const held = JSON.parse((await call("POST", path, { body: wanted("holder", 0) })).text);
  const headers = { ...requestHeaders, "content-type": "application/json" };
  const gone = http.request({ socketPath, method: "POST", path, headers, agent: false });
  let isAnswered = false;
  gone.on("error", () => {}).on("response", () => (isAnswered = true)).end(wanted("gone", 25));
  // Long enough to stand in line; were it not, the test would only prove less.
  await delay(500);
  gone.destroy();
  assert.ok(!isAnswered);
  const next = call("POST", path, { body: wanted("next", 20) });
  await delay(100);
  assert.equal((await call("POST", "/v1/locks/left/release", { body: JSON.stringify({ lockId: held.lockId }) })).status, 204);
  const { status, text } = await next;
  assert.equal(status, 200, text);
  console.log("  a client that waited for a lock and left: the next one got it");
}

async function checkTrap(call, origin, when) {
  const name = `trap-${when}`;
  const configured = await call("PUT", `/v1/origins/${name}`, { body: JSON.stringify({ baseUrl: origin.url }) });
  assert.equal(configured.status, 200, configured.text);

  const reads = Array.from({ length: CLIENTS }, (_, at) => call("GET", `/v1/fetch/${name}/${at % PATHS}`));
  const order = call("POST", `/v1/fetch/${name}/order`, { body: "one" });
  await origin.asked(PATHS + 1);
  const trap = await call("PUT", "/v1/settings/trap", { body: "1", headers: { "x-test-trap": when } });
  const told = await order;
  for (const { status, headers, text } of [trap, told]) {
    assert.deepEqual([status, JSON.parse(text).type, headers["retry-after"]], [503, "/problems/interrupted", "1"]);
  }
  // Each path is asked for again by the new instance, the order is not.
  await origin.asked(2 * PATHS + 1);
  origin.open();
  for (const { status, text } of await Promise.all(reads)) assert.deepEqual([status, text], [200, "good"]);
  assert.equal(origin.seen.length, 2 * PATHS + 1);
  assert.equal(origin.seen.filter((line) => line === "POST /order").length, 1);
  console.log(`  trap at ${when}: ${CLIENTS} reads of ${PATHS} paths answered, ${2 * PATHS} calls of the origin; the write told 503`);
}

await main(async () => {
  await build();
  const folder = mkdtempSync(join(tmpdir(), "kv-patterns-recovery-"));
  const kv = await start(prepare(await kvWorker(), join(folder, "kv")));
  const [ours] = await peerWorkers(["ours"]);
  const files = { [ENTRY]: readFileSync(ENTRY), ...ours.files };
  const worker = await start(prepare({ ...ours, files, v8Flags: V8_FLAGS }, join(folder, "ours"), kv.socket));
  const call = (method, path, init) => send(worker.socket, method, path, init);
  try {
    await checkFailing(call, worker.stderr);
    const kept = JSON.stringify({ ttlSeconds: 600 });
    assert.equal((await call("POST", "/v1/locks/kept/acquire", { body: kept })).status, 200);
    for (const when of ["start", "timer"]) {
      const origin = await startOrigin();
      try {
        await checkTrap(call, origin, when);
      } finally {
        origin.open();
        origin.stop();
      }
      // What an object keeps outlives the instance it was made in.
      assert.equal((await call("POST", "/v1/locks/kept/acquire", { body: kept })).status, 409);
    }
    await checkGone(call, worker.socket);
  } finally {
    await worker.stop();
    await kv.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
