// Conformance over HTTP: `wrangler dev` in front of a scripted origin on loopback, one small script per rule (cases.mjs).
//
//   node tests/conformance/run.mjs [--only=substring] [--url=http://127.0.0.1:8787 --origin-port=9001]
//
// Needs a built bundle. Without `--url` it starts wrangler itself. It waits real seconds, so it is no part of `npm test`.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import http from "node:http";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cases } from "./cases.mjs";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const options = Object.fromEntries(process.argv.slice(2).map((argument) => argument.replace(/^--/, "").split("=")));
const PARALLEL = 12;

const scripts = new Map();

/** A header's value: a number is seconds from now as an HTTP date. */
const valueOf = (value) => (typeof value === "number" ? new Date(Date.now() + value * 1000).toUTCString() : value);

function answer(request, response) {
  const { pathname } = new URL(request.url, "http://origin");
  const script = scripts.get(pathname.split("/")[2]);
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    if (script === undefined) return response.writeHead(404).end();
    script.seen.push({ method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() });
    const step = script.steps[Math.min(script.seen.length, script.steps.length) - 1];
    if (step.disconnect) return request.socket.destroy();
    const headers = (step.headers ?? []).map(([name, value]) => [name, valueOf(value)]);
    if (!headers.some(([name]) => name.toLowerCase() === "content-type")) headers.push(["Content-Type", "text/plain"]);
    response.sendDate = !headers.some(([name]) => name.toLowerCase() === "date") && !step.noDate;
    response.writeHead(step.status ?? 200, headers.flat());
    if (step.cut) {
      response.write(step.body ?? "partial");
      setTimeout(() => request.socket.destroy(), 50);
      return;
    }
    response.end(step.status === 304 || request.method === "HEAD" ? undefined : (step.body ?? `body ${script.seen.length}`));
  });
}

async function run(test, base) {
  const id = randomUUID();
  const steps = test.requests.map((request) => request.origin ?? {});
  const script = { seen: [], steps: [] };
  scripts.set(id, script);
  const failures = [];
  for (const [at, request] of test.requests.entries()) {
    if (request.pause) await new Promise((resolve) => setTimeout(resolve, request.pause * 1000));
    // An origin answers with the script of the request it serves, also when earlier ones never came to it.
    while (script.steps.length < script.seen.length) script.steps.push({});
    script.steps.length = script.seen.length;
    script.steps.push(steps[at]);
    const before = script.seen.length;
    const path = `/test/${id}${request.path ?? ""}`;
    const check = (holds, text) => holds || failures.push(`request ${at + 1}: ${text}`);
    const expect = request.expect ?? {};
    let reply;
    let body;
    try {
      reply = await fetch(base + path, {
        method: request.method ?? "GET",
        headers: (request.headers ?? []).map(([name, value]) => [name, valueOf(value)]),
        body: request.body,
        redirect: "manual",
      });
      body = await reply.text();
    } catch (error) {
      check(expect.broken, `fetch failed: ${error.cause?.message ?? error.message}`);
      continue;
    }
    const asked = script.seen.length - before;
    const shown = `status ${reply.status}, ${JSON.stringify(body.slice(0, 40))}, ${reply.headers.get("cache-status")}`;
    if (expect.broken) check(false, `was not broken: ${shown}`);
    if (expect.cached === true) check(asked === 0, `the origin was asked; ${shown}`);
    if (expect.cached === false) check(asked >= 1, `the origin was not asked; ${shown}`);
    if (expect.status !== undefined) check(reply.status === expect.status, `expected status ${expect.status}; ${shown}`);
    if (expect.body !== undefined) check(body === expect.body, `expected body ${JSON.stringify(expect.body)}; ${shown}`);
    for (const [name, value] of Object.entries(expect.headers ?? {})) {
      const got = reply.headers.get(name);
      const holds = typeof value === "function" ? value(got) : value instanceof RegExp ? value.test(got ?? "") : got === value;
      check(holds, `header ${name} is ${JSON.stringify(got)}, expected ${value}; ${shown}`);
    }
    const last = script.seen.at(-1);
    for (const [name, value] of Object.entries(expect.sent ?? {})) {
      const got = asked > 0 ? (last.headers[name.toLowerCase()] ?? null) : "(nothing sent)";
      const holds = value instanceof RegExp ? value.test(got ?? "") : got === value;
      check(holds, `the origin got ${name}: ${JSON.stringify(got)}, expected ${value}`);
    }
    if (expect.sentBody !== undefined) check(last.body === expect.sentBody, `the origin got the body ${JSON.stringify(last.body)}`);
    if (expect.sentMethod !== undefined) check(last.method === expect.sentMethod, `the origin got ${last.method}`);
  }
  return failures;
}

async function wrangler(originPort) {
  const folder = mkdtempSync(join(tmpdir(), "conformance-"));
  const bin = join(root, "node_modules", ".bin");
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const policy = JSON.stringify({ setCookie: "store", staleOnConnectionFailure: true });
  const vars = join(folder, "vars");
  writeFileSync(vars, `ROOT_ORIGIN='http://127.0.0.1:${originPort}'\nROOT_ORIGIN_POLICY='${policy}'\n`);
  const args = ["dev", "--port", String(port), "--ip", "127.0.0.1", "--env-file", vars, "--persist-to", folder, "--show-interactive-dev-session=false"];
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, CLOUDFLARE_CF_FETCH_ENABLED: "false", WRANGLER_SEND_METRICS: "false" };
  const child = spawn(join(bin, "node"), [join(root, "node_modules/wrangler/bin/wrangler.js"), ...args], { cwd: root, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stdout.on("data", (chunk) => (log += chunk));
  child.stderr.on("data", (chunk) => (log += chunk));
  const stop = () => {
    try {
      process.kill(-child.pid, "SIGTERM");
    } catch {
      // Already gone.
    }
    rmSync(folder, { recursive: true, force: true });
    if (options.log) writeFileSync(options.log, log);
  };
  const base = `http://127.0.0.1:${port}`;
  for (let tries = 0; tries < 300; tries += 1) {
    const reply = await fetch(`${base}/health`).catch(() => undefined);
    await reply?.text();
    if (reply !== undefined && reply.status < 500) return { base, stop };
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  stop();
  throw new Error(`wrangler did not start:\n${log}`);
}

const server = http.createServer(answer);
await new Promise((resolve) => server.listen(Number(options["origin-port"] ?? 0), "127.0.0.1", resolve));
const worker = options.url ? { base: options.url, stop() {} } : await wrangler(server.address().port);
const chosen = cases.filter(({ name }) => name.includes(options.only ?? ""));
const queue = [...chosen];
let failed = 0;
await Promise.all(
  Array.from({ length: PARALLEL }, async () => {
    for (let test = queue.shift(); test !== undefined; test = queue.shift()) {
      const failures = await run(test, worker.base).catch((error) => [String(error)]);
      if (failures.length > 0) {
        failed += 1;
        console.log(`FAIL ${test.name}\n  ${failures.join("\n  ")}`);
      }
    }
  }),
);
console.log(`${chosen.length - failed} of ${chosen.length} passed`);
worker.stop();
server.close();
server.closeAllConnections();
process.exitCode = failed > 0 ? 1 : 0;
