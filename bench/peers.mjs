// The three peers as Workers that raw workerd can run: their files and their bindings.
//
// Bindings, variables and the compatibility date are those of wrangler.toml, read by wrangler itself, so that ours runs as
// it is deployed and the others run under the same rules.

import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";
import { unstable_readConfig as readConfig } from "wrangler";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** Something whoever runs the benchmark has to do or to write otherwise; its message is all there is to say. */
export class UsageError extends Error {}

const API_TOKEN = "bench-token";

/** Sent with every request, so that no peer reads less than another; floor ignores it. */
export const requestHeaders = { Authorization: `Bearer ${API_TOKEN}` };

/** Durable Objects of the two peers, as `{ name, className }`, which their entry files must export. Ours are in wrangler.toml. */
const durableObjectsOfPeers = [
  { name: "COUNTER", className: "Counter" },
  { name: "LIMITER", className: "Limiter" },
  { name: "LOCK", className: "Lock" },
];

async function bundle(entry) {
  const { outputFiles } = await esbuild.build({
    entryPoints: [path.join(root, "bench", entry)],
    bundle: true,
    minify: true,
    format: "esm",
    target: "esnext",
    conditions: ["workerd", "worker", "browser"],
    external: ["cloudflare:*"],
    write: false,
  });
  return Buffer.from(outputFiles[0].contents);
}

/** As deployed: wrangler.toml's `main`, and the bundle it imports. */
function filesOfOurs() {
  const names = ["src/worker/entry.js", "build/index.js", "build/index_bg.wasm"];
  const missing = names.filter((name) => !fs.existsSync(path.join(root, name)));
  if (missing.length > 0) throw new UsageError(`${missing.join(" and ")} missing: run \`npm run build\` first.`);
  return Object.fromEntries(names.map((name) => [name, fs.readFileSync(path.join(root, name))]));
}

function platform() {
  const config = readConfig({ config: path.join(root, "wrangler.toml") });
  const sha256 = crypto.createHash("sha256").update(API_TOKEN).digest("hex");
  return {
    compatibilityDate: config.compatibility_date,
    compatibilityFlags: config.compatibility_flags,
    kvBindings: config.kv_namespaces.map(({ binding }) => binding),
    durableObjects: config.durable_objects.bindings.map(({ name, class_name: className }) => ({ name, className })),
    texts: {
      ...config.vars,
      // The gateway's origin is on this machine.
      ALLOW_LOOPBACK_ORIGINS: "1",
      API_TOKENS: JSON.stringify({ bench: { sha256, tenant: "bench", scopes: ["*"] } }),
    },
  };
}

/** The in-memory KV, a Worker without bindings. */
export async function kvWorker() {
  const { compatibilityDate } = platform();
  return { name: "kv", compatibilityDate, files: { "index.js": fs.readFileSync(path.join(root, "bench", "harness", "kv.js")) } };
}

/** Name of the peer to its Worker, in the order of the table: floor, typescript, ours. */
export async function peerWorkers(names) {
  const ours = platform();
  const peer = { ...ours, durableObjects: durableObjectsOfPeers };
  const makers = {
    floor: async () => ({ ...peer, files: { "index.js": await bundle("floor/index.js") } }),
    typescript: async () => ({ ...peer, files: { "index.js": await bundle("typescript/index.ts") } }),
    ours: async () => ({ ...ours, files: filesOfOurs() }),
  };
  const workers = [];
  for (const name of names) workers.push({ name, ...(await makers[name]()) });
  return workers;
}
