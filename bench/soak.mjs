// `npm run soak`: mixed traffic on our bundle in raw workerd while KV fails now and then; what was acknowledged must hold afterwards.
//
// It ends with 1 when a reply has a status that is not expected there, when anything acknowledged does not hold, or when the
// memory of the process that runs the Worker goes on growing. Latencies are wall time on this machine, faults included, and are
// reported, not judged. KV is the benchmark's, in a process of its own, with the faults of `harness/faulty_kv.js`; it is strongly
// consistent, because here work and memory are tried, and consistency in the simulator.
//
//   --seconds=600       how long the traffic goes on
//   --rate=150          requests a second that are begun, as long as a connection is free
//   --connections=24    kept-alive connections
//   --seed=1            of the traffic

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Connection, headersOf, jsonOf, once, render } from "./harness/http.mjs";
import { table } from "./harness/report.mjs";
import { cpuMicros, prepare, start } from "./harness/workerd.mjs";
import { kvWorker, peerWorkers, requestHeaders, UsageError } from "./peers.mjs";
import { isCrowded, operations, prepareTraffic, verify } from "./soak/traffic.mjs";

const bench = path.dirname(fileURLToPath(import.meta.url));

/** Shares of KV's operations: no answer but an error, an error after the effect, an answer after 0.9 s, none at all. */
const FAULTS = { before: 0.01, after: 0.005, late: 0.002, never: 0.0005 };
/** Until breakers have closed, background work has ended, and a key may be written again. */
const CALM_MILLIS = 35_000;
/** How much the median of the last quarter's memory may be above that of the second one, in megabytes. */
const GROWTH_MB_MAX = 48;
const SAMPLE_MILLIS = 1000;
/**
 * Half of what the platform gives an isolate. Without a bound V8 collects when it likes: the process grows to some 300 MB whatever it
 * runs, and says nothing of what is held. With it, what is held for ever ends the process.
 * Source: <https://developers.cloudflare.com/workers/platform/limits/#memory>
 */
const V8_FLAGS = ["--max-heap-size=64"];

function options() {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string", default: "600" },
      rate: { type: "string", default: "150" },
      connections: { type: "string", default: "24" },
      seed: { type: "string", default: "1" },
    },
  });
  const whole = (name) => {
    const number = Number(values[name]);
    if (!Number.isInteger(number) || number < 1) throw new UsageError(`--${name} must be a whole number of at least 1`);
    return number;
  };
  return { seconds: whole("seconds"), rate: whole("rate"), connections: whole("connections"), seed: whole("seed") };
}

/** mulberry32: traffic that can be repeated, as far as answers are the same. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** An operation by weight. */
function chooser(random) {
  const names = Object.keys(operations);
  const total = names.reduce((sum, name) => sum + operations[name].weight, 0);
  return () => {
    let left = random() * total;
    const name = names.find((each) => (left -= operations[each].weight) < 0) ?? names[0];
    return name === "session create" && isCrowded() ? "session revoke" : name;
  };
}

/** What every reply must carry, whatever it says. */
function lacking(reply, headers) {
  if (!/^[\w.-]{1,128}$/.test(headers["x-request-id"] ?? "")) return "no request id";
  if (!/^kv;desc="r=\d+ w=\d+ d=\d+ l=\d+"$/.test(headers["server-timing"] ?? "")) return "no cost";
  if (reply.status === 503 && !/^[1-9]\d*$/.test(headers["retry-after"] ?? "")) return "no Retry-After";
  if (reply.status >= 400 && !/problem\+json|json/.test(headers["content-type"] ?? "")) return "no problem";
  return undefined;
}

class Ledger {
  unexpected = [];
  #rows = new Map();

  note(name, status, millis) {
    if (!this.#rows.has(name)) this.#rows.set(name, { millis: [], statuses: new Map() });
    const row = this.#rows.get(name);
    row.millis.push(millis);
    row.statuses.set(status, (row.statuses.get(status) ?? 0) + 1);
    if (!operations[name].statuses.includes(status)) this.unexpected.push(`${name} answered ${status}`);
  }

  /** Columns: operation, replies, p50, p99, longest, statuses. */
  table() {
    const at = (sorted, share) => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1);
    const row = (name, { millis, statuses }) => {
      const sorted = millis.sort((a, b) => a - b);
      const told = [...statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${status}:${count}`).join(" ");
      return [name, String(sorted.length), at(sorted, 0.5), at(sorted, 0.99), at(sorted, 1), told];
    };
    const rows = [...this.#rows].map(([name, found]) => row(name, found));
    const all = { millis: [...this.#rows.values()].flatMap(({ millis }) => millis), statuses: new Map() };
    for (const { statuses } of this.#rows.values()) for (const [status, count] of statuses) all.statuses.set(status, (all.statuses.get(status) ?? 0) + count);
    return table(["operation", "replies", "p50 ms", "p99 ms", "max ms", "statuses"], [...rows, row("all", all)]);
  }
}

const residentMb = (pid) => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, "latin1"))[1]) / 1024;

/** Begins `rate` operations a second, each on a free connection, and waits for the last. */
async function drive(peer, { seconds, rate, connections, seed }, ledger) {
  const random = generator(seed);
  const choose = chooser(random);
  const free = await Promise.all(Array.from({ length: connections }, async (_, id) => ({ id, random, connection: await Connection.open(peer.socket) })));
  const clients = [...free];
  for (const client of clients) {
    client.call = async (request) => {
      // workerd closes what was idle for five seconds; any client opens another one.
      if (client.connection.isClosed) client.connection = await Connection.open(peer.socket);
      const reply = await client.connection.exchange(render({ ...request, headers: { ...requestHeaders, ...request.headers } }));
      const missing = lacking(reply, headersOf(reply));
      if (missing !== undefined) ledger.unexpected.push(`${request.method} ${request.path} answered ${reply.status} with ${missing}`);
      return { status: reply.status, json: jsonOf(reply) };
    };
  }
  const running = new Set();
  const begun = performance.now();
  let count = 0;
  while (performance.now() - begun < seconds * 1000) {
    // As many as are due by now; what no connection was free for is not made up for.
    const due = Math.floor(((performance.now() - begun) / 1000) * rate);
    for (; count < due; count += 1) {
      const client = free.shift();
      if (client === undefined) continue;
      const name = choose();
      const asked = performance.now();
      const work = operations[name].run(client).then(
        ({ status }) => ledger.note(name, status, performance.now() - asked),
        (error) => ledger.unexpected.push(`${name}: ${error.message}`),
      ).finally(() => {
        running.delete(work);
        free.push(client);
      });
      running.add(work);
    }
    await delay(5);
  }
  await Promise.all(running);
  return clients;
}

const setFaults = async (kv, shares) => {
  const reply = await once(kv.socket, { method: "GET", path: "/", headers: { "x-kv-faults": JSON.stringify(shares) } });
  return JSON.parse(reply.body.toString());
};

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** Memory in quarters of the run, and what is wrong with it. */
function judgeMemory(samples) {
  const quarter = (number) => samples.slice(Math.floor((samples.length * number) / 4), Math.floor((samples.length * (number + 1)) / 4));
  const medians = [0, 1, 2, 3].map((number) => median(quarter(number)));
  const growth = medians[3] - medians[1];
  console.log(`memory of the process: ${medians.map((mb) => mb.toFixed(0)).join(", ")} MB by quarter, ${Math.max(...samples).toFixed(0)} at most`);
  return growth > GROWTH_MB_MAX ? [`memory grew by ${growth.toFixed(0)} MB from the second quarter to the last`] : [];
}

async function soak(settings, folder) {
  const plain = await kvWorker();
  const faulty = { "index.js": fs.readFileSync(path.join(bench, "harness", "faulty_kv.js")), "kv.js": plain.files["index.js"] };
  const kvPrepared = prepare({ ...plain, files: faulty }, path.join(folder, "kv"));
  const [ours] = await peerWorkers(["ours"]);
  const kv = await start(kvPrepared);
  const peer = await start(prepare({ ...ours, v8Flags: V8_FLAGS }, path.join(folder, "ours"), kvPrepared.socket));
  try {
    const call = async (request) => {
      const reply = await once(peer.socket, { ...request, headers: { ...requestHeaders, ...request.headers } });
      return { status: reply.status, json: jsonOf(reply) };
    };
    await prepareTraffic(call);
    await setFaults(kv, FAULTS);
    const ledger = new Ledger();
    const memory = [];
    const watch = setInterval(() => memory.push(residentMb(peer.pid)), SAMPLE_MILLIS);
    const cpuBefore = cpuMicros(peer.pid);
    const clients = await drive(peer, settings, ledger);
    clearInterval(watch);
    const cpu = (cpuMicros(peer.pid) - cpuBefore) / 1e6;
    const faults = await setFaults(kv, {});
    await delay(CALM_MILLIS);
    const { broken, looked } = await verify(call, settings.seconds);
    for (const { connection } of clients) connection.close();

    console.log(ledger.table());
    console.log(`${settings.seconds} s at up to ${settings.rate} a second; ${cpu.toFixed(1)} s of CPU in the Worker's process`);
    console.log(`faults of KV: ${Object.entries(faults).map(([fault, count]) => `${fault} ${count}`).join(", ")}`);
    console.log(`looked at afterwards: ${Object.entries(looked).map(([what, count]) => `${count} ${what}`).join(", ")}`);
    const wrong = [...ledger.unexpected, ...judgeMemory(memory), ...broken];
    const kinds = new Map();
    for (const sentence of wrong) kinds.set(sentence, (kinds.get(sentence) ?? 0) + 1);
    for (const [sentence, count] of [...kinds].slice(0, 50)) console.error(`WRONG ${count} times: ${sentence}`);
    console.log(`${wrong.length} wrong`);
    return wrong.length === 0;
  } finally {
    await Promise.all([peer.stop(), kv.stop()]);
  }
}

async function main() {
  const settings = options();
  if (process.platform !== "linux") throw new UsageError("Memory and CPU time are read from /proc: the soak needs Linux.");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "kv-soak-"));
  const clean = () => fs.rmSync(folder, { recursive: true, force: true });
  process.once("exit", clean);
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  process.exitCode = (await soak(settings, folder)) ? 0 : 1;
}

main().catch((error) => {
  console.error(error instanceof UsageError ? error.message : error);
  process.exitCode = 1;
});
