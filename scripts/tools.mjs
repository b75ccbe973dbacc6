// What the project needs on the machine, found or installed: Rust with its wasm32 target, the npm packages, and two
// (for the full checks three) cargo programs in `.tools`, which git ignores. What is already there is not touched.
import { createHash } from "node:crypto";
import { existsSync, lstatSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Problem, output, packageEnv, root, run, step, systemEnv } from "./lib.mjs";

const read = (name) => readFileSync(join(root, name), "utf8");

/** One sentence per missing program, all at once, before anything takes time. */
export function checkPrograms() {
  if (process.platform === "win32") throw new Problem("These commands need Linux or macOS: on Windows use WSL.");
  const missing = [];
  if (Number(process.versions.node.split(".")[0]) < 20) {
    missing.push(`Node.js 20 or newer is needed, this is ${process.version}: install it from https://nodejs.org.`);
  }
  const needs = [
    [["rustup", "cargo"], "Rust is missing: install it with rustup from https://rustup.rs, and have ~/.cargo/bin on the PATH."],
    [["npm"], "npm is missing: install it with Node.js from https://nodejs.org."],
    [["cc"], "A C compiler is missing (Rust links with it): install build-essential, or Xcode's command line tools."],
  ];
  for (const [programs, sentence] of needs) {
    // Only looked for: cargo, when run, may already ask for a toolchain that is not installed.
    const there = programs.every((program) => output("sh", ["-c", `command -v ${program}`]) !== undefined);
    if (!there) missing.push(sentence);
  }
  if (missing.length > 0) throw new Problem(missing.join("\n"));
}

/** The toolchain of rust-toolchain.toml with its components and target. rustup often may not install it by itself. */
export async function rust() {
  const file = read("rust-toolchain.toml");
  const channel = /^channel = "(.+)"/m.exec(file)[1];
  const list = (name) => [...new RegExp(`^${name} = \\[(.*)\\]`, "m").exec(file)[1].matchAll(/"(.+?)"/g)].map((m) => m[1]);
  const targets = list("targets");
  const components = list("components");

  const has = (kind) => output("rustup", [kind, "list", "--installed", "--toolchain", channel]) ?? "";
  const present = `${has("target")}\n${has("component")}`;
  const complete = [...targets, ...components].every((name) => present.includes(name));
  await step(`Rust ${channel} with ${[...targets, ...components].join(", ")}`, async () => {
    if (complete) return "installed";
    const wants = [...components.flatMap((c) => ["--component", c]), ...targets.flatMap((t) => ["--target", t])];
    await run("rustup", ["toolchain", "install", channel, "--profile", "minimal", "--no-self-update", ...wants]);
  });
}

/** `npm ci`, when the lock file is not the one that was installed from. */
export async function packages() {
  const wanted = createHash("sha256").update(read("package-lock.json")).digest("hex");
  // Inside node_modules, so that the mark goes when the packages go; written last, so that half an install has none.
  const mark = join(root, "node_modules", ".kv-patterns-installed");
  await step("npm packages (wrangler, Vitest, Node 24, wasm-opt)", async () => {
    if (existsSync(mark) && readFileSync(mark, "utf8") === wanted) return "installed";
    // npm would empty the folder behind the link.
    const shared = lstatSync(join(root, "node_modules"), { throwIfNoEntry: false })?.isSymbolicLink() === true;
    if (shared) throw new Problem("node_modules is a link to packages of another lock file: remove the link and try again.");
    // `error`: the packages want a newer Node than the one that installs them, and get it from the package `node`.
    await run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
    const version = output("node", ["--version"], { env: packageEnv });
    if (!(Number(version?.slice(1).split(".")[0]) >= 22)) {
      throw new Problem("npm did not run the install script of the package `node`: allow install scripts and try again.");
    }
    writeFileSync(mark, wanted);
  });
}

const locked = (crate) => new RegExp(`name = "${crate}"\nversion = "(.+)"`).exec(read("Cargo.lock"))[1];
// For machines that reach GitHub: worker-build fetches its own wasm-bindgen, which saves the minutes of compiling it.
const downloads = process.env.KV_PATTERNS_DOWNLOAD_TOOLS === "1";

// worker-build is released with the crate `worker`, and wasm-bindgen refuses any crate version but its own: Cargo.lock
// decides both. wasm-bindgen-cli without --locked: it is its own version that has to match, not those it is built with.
const WORKER_BUILD = { crate: "worker-build", program: "worker-build", version: () => locked("worker"), args: ["--locked"] };
const WASM_BINDGEN = { crate: "wasm-bindgen-cli", program: "wasm-bindgen", version: () => locked("wasm-bindgen"), args: [] };
const CARGO_DENY = { crate: "cargo-deny", program: "cargo-deny", version: () => "0.20.2", args: ["--locked"] };

/** Where a cargo program of the right version is: ours, or one from the PATH. It is run, not only looked for. */
function find({ program, version }) {
  const places = [join(root, ".tools", "bin", program), program];
  return places.find((place) => output(place, ["--version"])?.split(" ").pop() === version());
}

async function cargoProgram(tool) {
  await step(`${tool.program} ${tool.version()}`, async () => {
    if (find(tool)) return "installed";
    const hint = tool === WASM_BINDGEN ? "; KV_PATTERNS_DOWNLOAD_TOOLS=1 downloads it from GitHub instead" : "";
    console.log(`  compiled once, which takes minutes${hint}`);
    const path = join(root, ".tools");
    await run("cargo", ["install", tool.crate, "--version", tool.version(), "--root", path, "--force", ...tool.args]);
  });
}

/** What a build of the Worker needs. */
export async function buildPrograms() {
  await cargoProgram(WORKER_BUILD);
  if (!downloads) await cargoProgram(WASM_BINDGEN);
}

/** worker-build, and the environment in which it takes our tools instead of downloading its own. */
export function workerBuild() {
  const env = {
    ...packageEnv,
    WASM_OPT_BIN: join(root, "node_modules", ".bin", "wasm-opt"),
    ESBUILD_BIN: join(root, "node_modules", ".bin", "esbuild"),
  };
  if (!downloads) env.WASM_BINDGEN_BIN = find(WASM_BINDGEN);
  return { program: find(WORKER_BUILD), env };
}

/** cargo-deny where it is installed. It takes minutes to compile, so only a run that requires it installs it. */
export async function cargoDeny() {
  if (process.env.KV_PATTERNS_REQUIRE_DENY === "1") await cargoProgram(CARGO_DENY);
  return find(CARGO_DENY);
}

/** The advisory database is a git repository on GitHub. */
export const githubAnswers = () =>
  output("git", ["ls-remote", "--exit-code", "https://github.com/RustSec/advisory-db", "HEAD"], {
    env: { ...systemEnv, GIT_TERMINAL_PROMPT: "0" },
    timeout: 15_000,
  }) !== undefined;
