// The Worker's bundle in `build/`, and that of a test: made when something they are made of has changed, and weighed.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Problem, root, run, step } from "./lib.mjs";
import { buildPrograms, checkPrograms, packages, rust, workerBuild } from "./tools.mjs";

const SOURCES = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "build.rs", ".cargo", "src", "openapi", "package-lock.json", "scripts/bundle.mjs"];

const WORKER = { title: "Worker, release build", folder: "build", sources: SOURCES, args: ["--release"] };
// `KV_PATTERNS_DEV=1`: unoptimised, for the quick loop of editing and running tests; never weighed, measured or uploaded.
const QUICK = { ...WORKER, title: "Worker, development build", args: ["--dev", "--no-opt"] };
const isQuick = process.env.KV_PATTERNS_DEV === "1";
// Without optimisation: it is run a few times and never uploaded.
const CONTRACT = {
  title: "Worker that runs the store's contract",
  folder: "tests/worker/contract/build",
  sources: [...SOURCES, "tests/it/kv_contract", "tests/worker/contract/Cargo.toml", "tests/worker/contract/lib.rs"],
  args: ["tests/worker/contract", "--dev", "--no-opt"],
};
const outputs = ({ folder }) => [`${folder}/index.js`, `${folder}/index_bg.wasm`];

/** What is uploaded, compressed. The goal is 400 000 (CHANGELOG.md, "Known shortfalls"); this keeps it from growing. */
const BUDGET_BYTES = 1_000_000;

function* files(path) {
  if (!existsSync(join(root, path))) return;
  if (!statSync(join(root, path)).isDirectory()) return yield path;
  for (const name of readdirSync(join(root, path)).sort()) yield* files(join(path, name));
}

/** Contents, not times: a fresh clone or a switched branch changes times and nothing else. */
function fingerprint({ sources, args }) {
  const hash = createHash("sha256").update(args.join(" "));
  for (const path of sources.flatMap((source) => [...files(source)])) {
    const content = readFileSync(join(root, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}

/** wasm-bindgen names a module once for each of its parts that imports it, which bundlers warn of. */
function nameOnce({ folder }) {
  const path = join(root, folder, "index.js");
  const repeated = /(,"\.\/snippets\/[^"]+":[\w$]+)(?=\1)/g;
  writeFileSync(path, readFileSync(path, "utf8").replaceAll(repeated, ""));
}

/** Takes what only a debugger reads, function names, and some size. The profile's `strip` would break the build instead. */
async function shrink(worker, env) {
  if (worker !== WORKER) return;
  const wasm = join(root, worker.folder, "index_bg.wasm");
  await run(env.WASM_OPT_BIN, [wasm, "--all-features", "-Oz", "--strip-debug", "--strip-producers", "-o", wasm], { env });
}

/** Builds a bundle, unless the one in place was made from the same sources. */
async function bundle(worker) {
  await step(worker.title, async () => {
    const mark = join(root, worker.folder, ".sources");
    const present = () => outputs(worker).every((path) => existsSync(join(root, path)));
    // Taken before the build: what is edited during it belongs to the next.
    const sources = fingerprint(worker);
    if (present() && existsSync(mark) && readFileSync(mark, "utf8") === sources) return "unchanged";
    const { program, env } = workerBuild();
    await run(program, worker.args, { env });
    if (!present()) throw new Problem(`The build ended without ${outputs(worker).join(" and ")}.`);
    nameOnce(worker);
    await shrink(worker, env);
    writeFileSync(mark, sources);
  });
}

/** The Worker itself. */
export const build = () => bundle(isQuick ? QUICK : WORKER);
/** The Worker of tests/worker/kv_contract.test.ts. */
export const buildContract = () => bundle(CONTRACT);

/** Everything from an empty checkout to a bundle. */
export async function prepare({ release = false } = {}) {
  if (release && isQuick) throw new Problem("KV_PATTERNS_DEV=1 asks for an unoptimised Worker, and this needs the release build.");
  checkPrograms();
  await rust();
  await packages();
  await buildPrograms();
  await build();
}

/** Prints what the bundle weighs; a Problem beyond the budget. */
export function weigh() {
  if (isQuick) return "an unoptimised Worker says nothing about size";
  const row = (name, raw, gzip) => console.log(`  ${name.padEnd(22)}${String(raw).padStart(10)}${String(gzip).padStart(10)}`);
  row("bytes", "raw", "gzip");
  let total = 0;
  for (const path of outputs(WORKER)) {
    const content = readFileSync(join(root, path));
    const gzip = gzipSync(content).length;
    total += gzip;
    row(path, content.length, gzip);
  }
  console.log(`  ${total} bytes compressed, of at most ${BUDGET_BYTES}`);
  if (total > BUDGET_BYTES) throw new Problem(`The bundle is ${total - BUDGET_BYTES} bytes over its budget.`);
}
