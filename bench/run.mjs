// `npm run bench`: CPU time per request of our bundle beside two peers that do the same, in one run on one machine.
//
// Peers: `floor`, hand-written JavaScript that makes the same KV calls and nothing else; `typescript`, the same job with
// Hono and zod; `ours`, build/index.js and build/index_bg.wasm as `npm run build` left them.
//
// What is measured is the CPU time (user and system, all threads) of the peer's own raw workerd process over thousands of
// requests, in clock ticks of 10 ms from /proc, so this needs Linux. Wall time is not used: on a shared machine it is
// noise, and even CPU time per request may change severalfold from one second to the next where cores are throttled. So
// within a round the peers take turns every 200 requests, and a peer, which burns nothing while another has its turn, is
// charged for the round as a whole. Reported is the median over the rounds of the ratio within a round, with the smallest
// and the largest; microseconds are those of this machine on this day, and only ratios carry over to another.
//
// KV is an in-memory service in a workerd process of its own, reached over a Unix socket. In the peer's process it would
// add its JavaScript to every peer's CPU and pull every ratio towards 1, which flatters the slower; apart, a KV call costs
// the peer what it costs any client of a remote store: one HTTP exchange. That remainder is the same for all three.
// (Tried both ways, a peer's CPU per request came out within an eighth, so the choice moves the ratios little.)
//
// Fairness is checked, not assumed: equal KV operations by the service's own counters, equal JSON shape and headers
// between `typescript` and `ours`, replies of `floor` of the same length. A row that fails is printed, and the run exits 1.
//
// Results go to bench/results/latest.json, which git ignores; `--save` also writes bench/results.json, which git does not
// ignore, for when a change of the numbers is worth committing.
//
//   --routes=a,b        rows of routes.mjs (default: all)
//   --rounds=7          samples of each peer per row
//   --requests=3000     requests per sample
//   --connections=8     kept-alive connections, one request at a time each
//   --cold-starts=7     process starts of each peer
//   --peers=a,b         only these peers, while one is being written; the run says which it left out
//   --save              also write bench/results.json

import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { jsonOf, once, Pool, render } from "./harness/http.mjs";
import { describe, median, perRequest, ratio, sizesOf, spread, table, unfairness } from "./harness/report.mjs";
import { cpuMicros, prepare, start } from "./harness/workerd.mjs";
import { kvWorker, peerWorkers, requestHeaders, UsageError } from "./peers.mjs";
import { routes, VARIANTS } from "./routes.mjs";

const bench = path.dirname(fileURLToPath(import.meta.url));
const PEERS = ["floor", "typescript", "ours"];
/** Requests before a row's first round: enough for V8 to have optimised what it will. Later rounds get one slice. */
const WARM_UP_REQUESTS = 2000;
/** Requests a peer gets in one turn: tens of milliseconds, far shorter than the phases of a throttled or shared core. */
const SLICE_REQUESTS = 200;
/** Lets work after the reply (`waitUntil`, collected garbage) end inside the sample that caused it. */
const SETTLE_MS = 30;

function options() {
  const { values } = parseArgs({
    options: {
      routes: { type: "string" },
      rounds: { type: "string", default: "7" },
      requests: { type: "string", default: "3000" },
      connections: { type: "string", default: "8" },
      "cold-starts": { type: "string", default: "7" },
      peers: { type: "string", default: PEERS.join(",") },
      save: { type: "boolean", default: false },
    },
  });
  const whole = (name) => {
    const number = Number(values[name]);
    if (!Number.isInteger(number) || number < 1) throw new UsageError(`--${name} must be a whole number of at least 1`);
    return number;
  };
  const chosen = (list, known, name) => {
    const unknown = list.filter((each) => !known.includes(each));
    if (unknown.length > 0) throw new UsageError(`--${name}: no ${unknown.join(", ")}; there are ${known.join(", ")}`);
    return known.filter((each) => list.includes(each));
  };
  const names = routes.map(({ name }) => name);
  const rows = chosen(values.routes?.split(",") ?? names, names, "routes");
  return {
    rows: routes.filter(({ name }) => rows.includes(name)),
    peers: chosen(values.peers.split(","), PEERS, "peers"),
    rounds: whole("rounds"),
    requests: whole("requests"),
    connections: whole("connections"),
    coldStarts: whole("cold-starts"),
    save: values.save,
  };
}

/** KV operations so far by peer; `reset` also empties KV. */
async function kvCounts(kv, command = "counts") {
  const reply = await once(kv.socket, { method: "GET", path: "/", headers: { "x-kv-control": command } });
  return JSON.parse(reply.body.toString());
}

/** An origin on loopback that answers two kilobytes, to be kept for an hour. */
function startOrigin() {
  const body = Buffer.alloc(2048, 120);
  const headers = { "Content-Type": "text/plain", "Cache-Control": "max-age=3600", "Content-Length": body.length };
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => response.writeHead(200, headers).end(body));
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const stop = () => server.closeAllConnections() ?? server.close();
      resolve({ url: `http://127.0.0.1:${server.address().port}`, stop });
    });
  });
}

/** The requests of a row for one peer: what they need is made through the peer's own HTTP. */
async function requestsOf(row, peer, origin) {
  const call = async ({ method, path: where, body, status }) => {
    const reply = await once(peer.socket, { method, path: where, headers: requestHeaders, body });
    if (reply.status >= 400 && reply.status !== status) throw new Error(`${peer.name} ${method} ${where}: ${reply.status} ${reply.body}\n${peer.stderr()}`);
    return { status: reply.status, json: jsonOf(reply) };
  };
  const state = await row.prepare?.(call, origin);
  return Array.from({ length: VARIANTS }, (_, i) => {
    const { path: where = row.path, headers = {}, body } = row.request?.(i, state) ?? {};
    return { method: row.method, path: where, headers: { ...requestHeaders, ...headers }, body };
  });
}

/** Sends `total` requests to each of `loads` in slices, the peers taking turns and each turn starting with another. */
async function interleave(loads, total) {
  for (let sent = 0, turn = 0; sent < total; sent += SLICE_REQUESTS, turn += 1) {
    const count = Math.min(SLICE_REQUESTS, total - sent);
    for (let i = 0; i < loads.length; i += 1) await loads[(turn + i) % loads.length](count);
  }
}

/** One round of a row: per peer the CPU per request, one reply and the KV operations per request. */
async function measureRound(row, peers, kv, { requests: total, warmUp, origin }) {
  await kvCounts(kv, "reset");
  const replies = [];
  const loads = [];
  for (const peer of peers) {
    const requests = await requestsOf(row, peer, origin);
    replies.push(await once(peer.socket, requests[0]));
    const rendered = requests.map(render);
    loads.push(async (count) => {
      try {
        await peer.pool.drive({ requests: rendered, count, status: row.status });
      } catch (error) {
        throw new Error(`${row.name}, ${peer.name}: ${error.message}\n${peer.stderr()}`, { cause: error });
      }
    });
  }
  await interleave(loads, warmUp);
  await delay(SETTLE_MS);
  const countsBefore = await kvCounts(kv);
  const cpuBefore = peers.map(({ pid }) => cpuMicros(pid));
  await interleave(loads, total);
  await delay(SETTLE_MS);
  const cpuAfter = peers.map(({ pid }) => cpuMicros(pid));
  const countsAfter = await kvCounts(kv);
  return peers.map(({ name }, i) => ({
    name,
    micros: (cpuAfter[i] - cpuBefore[i]) / total,
    reply: replies[i],
    operations: perRequest(countsBefore[name], countsAfter[name], total),
  }));
}

/** All rounds of one row: per peer the samples, and the reply and KV operations of the last round. */
async function measure(row, peers, kv, settings) {
  const results = Object.fromEntries(peers.map(({ name }) => [name, { samples: [] }]));
  for (let round = 0; round < settings.rounds; round += 1) {
    const warmUp = round === 0 ? WARM_UP_REQUESTS : SLICE_REQUESTS;
    for (const { name, micros, ...last } of await measureRound(row, peers, kv, { ...settings, warmUp })) {
      results[name].samples.push(micros);
      Object.assign(results[name], last);
    }
  }
  return results;
}

async function coldStarts(prepared, count) {
  const millis = Object.fromEntries(prepared.map(({ name }) => [name, []]));
  for (let i = 0; i < count; i += 1) {
    for (const each of prepared) {
      const began = performance.now();
      const peer = await start(each);
      try {
        await once(peer.socket, { method: "GET", path: "/health", headers: requestHeaders });
        millis[each.name].push(performance.now() - began);
      } finally {
        await peer.stop();
      }
    }
  }
  return Object.fromEntries(Object.entries(millis).map(([name, values]) => [name, median(values)]));
}

/** A row as it is written to the results. */
function rowResult(row, measured) {
  const names = Object.keys(measured);
  const samplesOf = (name) => measured[name]?.samples;
  const ratioOf = (a, b) => (samplesOf(a) && samplesOf(b) ? ratio(samplesOf(a), samplesOf(b)) : null);
  return {
    route: row.name,
    cpuMicros: Object.fromEntries(names.map((name) => [name, median(samplesOf(name))])),
    samples: Object.fromEntries(names.map((name) => [name, samplesOf(name)])),
    ratios: {
      "ours/typescript": ratioOf("ours", "typescript"),
      "ours/floor": ratioOf("ours", "floor"),
      "typescript/floor": ratioOf("typescript", "floor"),
    },
    operations: Object.fromEntries(names.map((name) => [name, measured[name].operations])),
    replyBytes: Object.fromEntries(names.map((name) => [name, { head: measured[name].reply.head.length, body: measured[name].reply.body.length }])),
    unfair: unfairness(measured, row.background),
  };
}

function print({ rows, bundles, coldStartMillis, peers }) {
  const micros = (name) => (row) => row.cpuMicros[name]?.toFixed(1) ?? "-";
  const ratioCell = (name) => (row) => (row.ratios[name] === null ? "-" : spread(row.ratios[name]));
  const last = peers.at(-1);
  const columns = [
    ["CPU per request", (row) => row.route],
    ...peers.map((name) => [`${name} µs`, micros(name)]),
    ...["ours/typescript", "ours/floor", "typescript/floor"].map((name) => [name, ratioCell(name)]),
    ["KV operations", (row) => describe(row.operations[last])],
    ["reply bytes", (row) => peers.map((name) => row.replyBytes[name].body).join("/")],
  ];
  console.log(`\n${table(columns.map(([head]) => head), rows.map((row) => columns.map(([, cell]) => cell(row))))}`);
  console.log("Ratios: median of the rounds (smallest..largest).\n");
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} KB`;
  const perPeer = peers.map((name) => [
    name,
    kilobytes(bundles[name].rawBytes),
    kilobytes(bundles[name].gzipBytes),
    `${coldStartMillis[name].toFixed(0)} ms`,
    coldStartMillis.floor === undefined ? "-" : `${(coldStartMillis[name] - coldStartMillis.floor).toFixed(0)} ms`,
  ]);
  console.log(table(["Bundle", "raw", "gzip", "process start to first reply", "above floor"], perPeer));
  for (const row of rows) for (const sentence of row.unfair) console.error(`UNFAIR ${row.route}: ${sentence}`);
}

async function run(settings, folder) {
  const kvPrepared = prepare(await kvWorker(), path.join(folder, "kv"));
  const workers = await peerWorkers(settings.peers);
  const prepared = workers.map((worker) => prepare(worker, path.join(folder, worker.name), kvPrepared.socket));
  const origin = await startOrigin();
  const running = [origin];
  try {
    const kv = await start(kvPrepared);
    running.push(kv);
    const coldStartMillis = await coldStarts(prepared, settings.coldStarts);
    const peers = [];
    for (const each of prepared) {
      const peer = await start(each);
      running.push(peer);
      peers.push({ ...peer, pool: await Pool.open(peer.socket, settings.connections) });
    }
    const rows = [];
    for (const row of settings.rows) {
      console.log(`${row.name}: ${settings.rounds} rounds of ${settings.requests} requests to each of ${settings.peers.join(", ")}`);
      rows.push(rowResult(row, await measure(row, peers, kv, { ...settings, origin: origin.url })));
    }
    const bundles = Object.fromEntries(workers.map(({ name, files }) => [name, sizesOf(files)]));
    for (const { pool } of peers) pool.close();
    return { rows, bundles, coldStartMillis, peers: settings.peers };
  } finally {
    await Promise.all(running.map((each) => each.stop()));
  }
}

function write(file, results) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);
  console.log(`Written: ${path.relative(process.cwd(), file)}`);
}

async function main() {
  const settings = options();
  if (process.platform !== "linux") throw new UsageError("CPU time is read from /proc: this benchmark needs Linux.");
  const left = PEERS.filter((name) => !settings.peers.includes(name));
  if (left.length > 0) console.error(`Left out by --peers: ${left.join(", ")}.`);
  // Unix socket paths are short (108 bytes), so the sockets live in the system's temporary folder.
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "kv-bench-"));
  const clean = () => fs.rmSync(folder, { recursive: true, force: true });
  // Ctrl-C leaves neither files nor processes: `start` kills its process when this one exits.
  process.once("exit", clean);
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  try {
    const { rounds, requests, connections } = settings;
    const machine = { cpu: os.cpus()[0]?.model, cores: os.cpus().length, node: process.version };
    const results = { measuredAt: new Date().toISOString(), machine, rounds, requests, connections, ...(await run(settings, folder)) };
    print(results);
    write(path.join(bench, "results", "latest.json"), results);
    if (settings.save) write(path.join(bench, "results.json"), results);
    if (results.rows.some((row) => row.unfair.length > 0)) process.exitCode = 1;
  } finally {
    clean();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  main().catch((error) => {
    console.error(error instanceof UsageError ? error.message : error);
    process.exitCode = 1;
  });
}
