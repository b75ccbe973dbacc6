// What becomes of requests that wait for another one when that one fails, or when their Wasm instance ends. Vitest's runner
// switches off what it rests on, that a promise of one request may be kept by another (`handle_cross_request_promise_resolution`).
// The first on raw workerd, the platform without anything around it, under load: there an answer made in the context of another
// request cannot be sent.
import assert from "node:assert/strict";
import http from "node:http";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "../../scripts/bundle.mjs";
import { main } from "../../scripts/lib.mjs";
import { once } from "../../bench/harness/http.mjs";
import { prepare, start } from "../../bench/harness/workerd.mjs";
import { kvWorker, peerWorkers, requestHeaders } from "../../bench/peers.mjs";
import { freePort, serve } from "../../scripts/serve.mjs";

const PATHS = 20;
const CLIENTS = 300;
const AUTHORIZED = { authorization: "Bearer dev-token" };

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
async function checkFailing(folder) {
  const origin = await startFailingOrigin();
  const kv = await start(prepare(await kvWorker(), join(folder, "kv")));
  const [ours] = await peerWorkers(["ours"]);
  const worker = await start(prepare(ours, join(folder, "ours"), kv.socket));
  const call = (method, path, body) => once(worker.socket, { method, path, headers: requestHeaders, body });
  try {
    assert.equal((await call("PUT", "/v1/origins/failing", { baseUrl: origin.url })).status, 200);
    const counts = {};
    for (let round = 0; round < 30; round += 1) {
      const reads = Array.from({ length: 120 }, (_, at) => call("GET", `/v1/fetch/failing/${round}/${at % 6}`));
      for (const { status } of await Promise.all(reads)) counts[status] = (counts[status] ?? 0) + 1;
    }
    console.log(`  an origin that cuts three calls of ten: ${JSON.stringify(counts)}`);
    // Two failures in a row are told, nothing else may go wrong.
    assert.deepEqual(Object.keys(counts), ["200", "502"], worker.stderr());
    assert.ok(counts[502] < counts[200] / 4);
  } finally {
    origin.stop();
    await worker.stop();
    await kv.stop();
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
function send(url, { method = "GET", headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: { ...AUTHORIZED, ...headers }, agent: false }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }));
    });
    request.on("error", (error) => reject(new Error(`${method} ${url}: ${error.message}`))).end(body);
  });
}

async function check(address, origin, when) {
  const name = `trap-${when}`;
  const call = (path, init) => send(`${address}${path}`, init);
  const put = (path, body, headers) =>
    call(path, { method: "PUT", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
  const configured = await put(`/v1/origins/${name}`, { baseUrl: origin.url });
  assert.equal(configured.status, 200, configured.text);

  const reads = Array.from({ length: CLIENTS }, (_, at) => call(`/v1/fetch/${name}/${at % PATHS}`));
  const order = call(`/v1/fetch/${name}/order`, { method: "POST", body: "one" });
  await origin.asked(PATHS + 1);
  const trap = await put("/v1/settings/trap", 1, { "x-test-trap": when });
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
  const state = mkdtempSync(join(tmpdir(), "kv-patterns-recovery-"));
  await checkFailing(state);
  const { address, wrangler } = await serve(await freePort(), [
    ...["tests/recovery/entry.js", "--persist-to", state, "--log-level", "none"],
    ...["--var", "ALLOW_LOOPBACK_ORIGINS:1"],
  ]);
  try {
    for (const when of ["start", "timer"]) {
      const origin = await startOrigin();
      try {
        await check(address, origin, when);
      } finally {
        origin.open();
        origin.stop();
      }
    }
  } finally {
    wrangler.end();
    await wrangler.ended;
    rmSync(state, { recursive: true, force: true });
  }
});
